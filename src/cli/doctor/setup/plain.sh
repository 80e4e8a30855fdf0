# As root, so that @USER@ (uid @UID@) may make cgroups, also after a reboot. `--apply` does it.
set -eu
umask 022

# 1. What makes the cgroup, and moves processes there.
mkdir -p /etc/tidy-process
cat >@SCRIPT@ <<'END'
@CGROUP@END
chmod 755 @SCRIPT@

# 2. The cgroup, now.
@SCRIPT@

# 3. The cgroup, at each boot.
if [ -d /etc/local.d ]; then
  printf '#!/bin/sh\nexec @SCRIPT@\n' >/etc/local.d/tidy-process-user-@UID@.start
  chmod 755 /etc/local.d/tidy-process-user-@UID@.start
  ! command -v rc-update >/dev/null || rc-update -q add local default
elif [ ! -f /etc/rc.local ] && [ -d /etc/cron.d ]; then
  echo '@reboot root @SCRIPT@' >/etc/cron.d/tidy-process-user-@UID@
else
  [ -f /etc/rc.local ] || echo '#!/bin/sh' >/etc/rc.local
  # Some end with `exit`: it goes to the beginning.
  grep -qxF @SCRIPT@ /etc/rc.local || sed -i '1a @SCRIPT@' /etc/rc.local
  chmod 755 /etc/rc.local
fi

# 4. Each login of @USER@ stands in it.
logins=
for service in common-session common-session-noninteractive system-login base-session; do
  [ -f "/etc/pam.d/$service" ] || continue
  logins=yes
  grep -qF '@SCRIPT@ login' "/etc/pam.d/$service" ||
    echo 'session optional pam_exec.so quiet @SCRIPT@ login' >>"/etc/pam.d/$service"
done
[ -n "$logins" ] || echo 'tidy-process: no PAM here: each login has to be moved by hand' >&2

# 5. A shell that is open already: @SCRIPT@ PID
