# As root, so that @USER@ (uid @UID@) may make cgroups, with all limits. `--apply` does it.
set -eu
umask 022

# 1. A systemd of the user's own, which gives cgroups: now and after each boot, logged in or not.
loginctl enable-linger @USER@

# 2. All controllers for the users' systemds.
mkdir -p /etc/systemd/system/user@.service.d
printf '[Service]\nDelegate=cpu cpuset io memory pids\n' >/etc/systemd/system/user@.service.d/tidy-process.conf
systemctl daemon-reload

# 3. A systemd that runs already has them from its next start: log out, or
#    systemctl restart user@@UID@.service (which ends all that @USER@ runs)
