#!/bin/sh
# Made by `tidy-process doctor --setup`: a cgroup that @USER@ (uid @UID@) may make cgroups in.
# Without an argument it makes the cgroup; a pid is moved there; `login` is for pam_exec(8), and
# means the process that logs @USER@ in.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
base=@BASE@
dir=$base/user-@UID@
# Holds the logins, since a cgroup with processes of its own cannot hand controllers down.
leaf=$dir/tidy-process-supervisor

pid=${1-}
if [ "$pid" = login ]; then
  [ "${PAM_USER-}" = @USER@ ] && [ "${PAM_TYPE-}" = open_session ] || exit 0
  pid=$PPID
fi

if [ ! -e "$base/cgroup.procs" ]; then
  mkdir -p "$base"
  mount -t cgroup2 -o nsdelegate none "$base"
fi
mkdir -p "$leaf"
for controller in $(cat "$base/cgroup.controllers"); do
  # Refused where processes stand right in a base that is not the top: then without limits.
  { echo "+$controller" >"$base/cgroup.subtree_control"; } 2>/dev/null || :
done
# The files of limits stay root's: the limits of @USER@ as a whole.
for cgroup in "$dir" "$leaf"; do
  chown @UID@ "$cgroup"
  for file in cgroup.procs cgroup.threads cgroup.subtree_control; do
    chown @UID@ "$cgroup/$file"
  done
done

[ -n "$pid" ] || exit 0
own=$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
case $own in
  # What a supervisor holds must not leave it, unless this cgroup is inside, too.
  */tidy-process-[0-9]*) case @HERE@/ in "$own"/*) ;; *) exit 0 ;; esac ;;
esac
echo "$pid" >"$leaf/cgroup.procs"
