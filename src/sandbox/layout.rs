//! What the supervisor and the set-up program of a sandbox say to each other: the plan in memory,
//! the numbers on its command line, the messages on the line between them. Compiled into both.

/// The start of the plan, at address 0 of it. All places are counted from there, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Head {
    /// How many [`Op`]s, and where the first one is.
    pub(crate) ops: u32,
    pub(crate) ops_at: u32,
    /// How many instructions the seccomp filter has, and where the first one is.
    pub(crate) filter: u32,
    pub(crate) filter_at: u32,
    /// One of [`network`].
    pub(crate) network: u32,
    /// The port that is forwarded.
    pub(crate) port: u32,
    /// 1: the filter gets a listener, which goes to the supervisor.
    pub(crate) listens: u32,
    /// 1: the filter refuses nothing that comes between it and exec, so that it can be installed
    /// while the view is still being made.
    pub(crate) early: u32,
}

/// One piece of the view. `from` and `to` are places of strings that end in NUL; `to` is a path in
/// the view without the slash in front.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Op {
    /// One of [`op`].
    pub(crate) kind: u32,
    /// `MOUNT_ATTR_*`.
    pub(crate) attributes: u32,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// One of [`stage`].
    pub(crate) stage: u32,
}

/// When an op is carried out, where there is a template.
pub(crate) mod stage {
    /// Once: the template has it.
    pub(crate) const FIXED: u32 = 0;
    /// For each command anew.
    pub(crate) const OWN: u32 = 1;
    /// Once; then its mount is moved into what is the command's own.
    pub(crate) const CARRIED: u32 = 2;
    /// Ops of that stage, at the most.
    pub(crate) const MOST_CARRIED: usize = 32;
}

pub(crate) mod op {
    /// Makes a directory on a file system of ours.
    pub(crate) const DIRECTORY: u32 = 1;
    /// Makes a symbolic link at `to` to `from`.
    pub(crate) const LINK: u32 = 2;
    /// Shows the host's `from` at `to`, with all that is mounted below it.
    pub(crate) const BIND: u32 = 3;
    /// Mounts an empty tmpfs whose mode is `from`.
    pub(crate) const TMPFS: u32 = 4;
    /// Covers a file or directory, if there is one.
    pub(crate) const HIDE: u32 = 5;
    /// Mounts terminals of its own.
    pub(crate) const DEVPTS: u32 = 6;
    /// Mounts the processes of the new pid namespace.
    pub(crate) const PROC: u32 = 7;
    /// Shows the host's directory `from` at `to`; what is written there goes to a layer in memory.
    pub(crate) const OVERLAY: u32 = 8;
    /// Ops of this kind, at the most.
    pub(crate) const MOST_OVERLAYS: usize = 16;
}

pub(crate) mod network {
    pub(crate) const HOST: u32 = 0;
    pub(crate) const NONE: u32 = 1;
    pub(crate) const LOOPBACK: u32 = 2;
    /// Loopback, with a port whose listening socket goes outside.
    pub(crate) const FORWARD: u32 = 3;
}

/// The numbers in the program's first argument, in decimal, with a space between two.
pub(crate) mod number {
    pub(crate) const CHANNEL: usize = 0;
    pub(crate) const PLAN: usize = 1;
    /// The fd of a Landlock ruleset.
    pub(crate) const RULESET: usize = 2;
    pub(crate) const UID: usize = 3;
    pub(crate) const GID: usize = 4;
    /// 1: changes to that user and group, and drops all others, before anything else.
    pub(crate) const DROP: usize = 5;
    /// The process group, or -1.
    pub(crate) const GROUP: usize = 6;
    /// How many paths there are to execute; they follow the directory, and the command's own
    /// arguments follow them.
    pub(crate) const CANDIDATES: usize = 7;
    /// The step that is to fail, for tests; or 0.
    pub(crate) const FAIL: usize = 8;
    /// How many fds above 2 the command is to have; they follow.
    pub(crate) const KEPT: usize = 9;
    /// The namespaces of a template, to be entered; or -1.
    pub(crate) const USER_NAMESPACE: usize = 10;
    pub(crate) const MOUNTS_NAMESPACE: usize = 11;
    /// An empty network, which no other process is in; or -1.
    pub(crate) const NETWORK_NAMESPACE: usize = 12;
    /// What else is to be done about a template: the bits below.
    pub(crate) const TASKS: usize = 13;
    pub(crate) const COUNT: usize = 14;
    /// Hands out the network that it makes.
    pub(crate) const LENDS_NETWORK: usize = 1;
    /// Hands out its user namespace, and its mounts as they are before its own are added.
    pub(crate) const MAKES_TEMPLATE: usize = 2;
    /// Makes sure that what the template shows or covers is where it was.
    pub(crate) const LOOKS_AT_COVERS: usize = 4;
    /// Kept fds, at the most.
    pub(crate) const MOST_KEPT: usize = 64;
}

/// What a message is about: a pid with its pidfd, a directory, or the step that failed.
pub(crate) mod news {
    pub(crate) const INIT: u32 = 101;
    pub(crate) const MAIN: u32 = 102;
    /// The upper directory of an overlay; the third number is the op's place in the list.
    pub(crate) const UPPER: u32 = 103;
    /// The listening socket of a forwarded port.
    pub(crate) const LISTENER: u32 = 104;
    /// A namespace that is handed out, the list of its mounts, the count of its sockets.
    pub(crate) const USER_NAMESPACE: u32 = 105;
    pub(crate) const MOUNTS_NAMESPACE: u32 = 106;
    pub(crate) const MOUNTS: u32 = 107;
    pub(crate) const NETWORK_NAMESPACE: u32 = 108;
    pub(crate) const SOCKETS: u32 = 109;
    /// The listener of the filter.
    pub(crate) const NOTICES: u32 = 110;

    pub(crate) const PLAN: u32 = 1;
    pub(crate) const IDENTITY: u32 = 2;
    pub(crate) const USER: u32 = 3;
    pub(crate) const MAP: u32 = 4;
    pub(crate) const NAMESPACES: u32 = 5;
    pub(crate) const NETWORK: u32 = 6;
    pub(crate) const BIRTH: u32 = 7;
    pub(crate) const ROOT: u32 = 8;
    /// The third number is the op's place in the list.
    pub(crate) const VIEW: u32 = 9;
    pub(crate) const PIVOT: u32 = 10;
    pub(crate) const CHDIR: u32 = 11;
    pub(crate) const GROUP: u32 = 12;
    pub(crate) const RIGHTS: u32 = 13;
    pub(crate) const LANDLOCK: u32 = 14;
    pub(crate) const FILTER: u32 = 15;
    pub(crate) const SIGNALS: u32 = 16;
    pub(crate) const EXEC: u32 = 17;
    pub(crate) const FDS: u32 = 18;
    pub(crate) const FORWARD: u32 = 19;
    /// Entering a template, or handing one out.
    pub(crate) const TEMPLATE: u32 = 20;
    pub(crate) const LISTEN: u32 = 21;
}

/// One message: what it is about, an errno or a pid, and a place in the list of ops.
pub(crate) type Message = [u32; 3];
