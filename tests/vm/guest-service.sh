# shellcheck shell=bash
# Sourced by the guest scripts that run shutterd as a service: its installation, its state on a disk
# that outlives the machine, and one session a scene.

work=/var/tmp/service
# How long a session captures before and after what happens to the daemon.
capture_s=3
service=shutterd.service
server=http://127.0.0.1:7460
token=$work/client.token
# shellcheck source=devices.sh
source "$SHARE/devices.sh"

# As docs/operations.md tells, but for the time-outs: the machine is emulated and slow.
install_service() {
  say "installing the service"
  install -D -m 755 "$SHARE/shutterd" /usr/bin/shutterd
  install -D -m 644 "$SHARE/systemd/shutterd.service" /etc/systemd/system/shutterd.service
  install -D -m 644 "$SHARE/systemd/shutterd.socket" /etc/systemd/system/shutterd.socket
  install -D -m 644 "$SHARE/systemd/sysusers.d/shutterd.conf" /usr/lib/sysusers.d/shutterd.conf
  install -D -m 644 "$SHARE/systemd/tmpfiles.d/shutterd.conf" /usr/lib/tmpfiles.d/shutterd.conf
  mkdir -p /var/lib/shutterd "$work" /etc/shutterd
  mount /dev/vdb /var/lib/shutterd
  systemd-sysusers shutterd.conf
  systemd-tmpfiles --create shutterd.conf
  echo 'u client - "Unprivileged client"' | systemd-sysusers -
  {
    printf '[limits]\nstart_timeout_ms = 60000\nprobe_timeout_ms = 30000\norphan_grace_ms = 60000\n'
    # A group's bit, to see that the unit lets the worker set it.
    printf '[media]\ndir_mode = "2750"\n'
    device_settings
  } >/etc/shutterd/shutterd.toml
  chmod 755 "$work"
  systemctl daemon-reload
}

start_service() {
  say "starting the service"
  timeout 180 systemctl start "$service"
  # The client is neither root nor the daemon's user: it gets the operator's token, and asks over TCP.
  install -o client -m 400 /var/lib/shutterd/operator.token "$token"
}

client() {
  timeout 180 setpriv --reuid=client --regid=client --clear-groups \
    shutterd --server "$server" --token-file "$token" --json "$@"
}

# begin SCENE: starts a session with the scene's name, and lets it capture.
begin() {
  scene=$1
  results=$RESULTS/$scene
  mkdir -p "$results"
  say "$scene: starting a session"
  session_json "$scene" >"$work/$scene.json"
  cp "$work/$scene.json" "$results/session.json"
  client session start "$work/$scene.json" >"$results/started.json"
  sleep "$capture_s"
  worker_pid >"$results/worker-before"
  main_pid >"$results/daemon-before"
}

# finish: lets the session capture some more, stops it, and keeps what came of it.
finish() {
  worker_pid >"$results/worker-after"
  main_pid >"$results/daemon-after"
  sleep "$capture_s"
  say "$scene: stopping the session"
  client session stop "$scene" >"$results/stopped.json"
  keep
}

# The session of the scene as it is now, and whether that is finished.
is_finished() {
  client session show "$scene" >"$results/stopped.json" && grep -q '"state": "finished"' "$results/stopped.json"
}

keep() {
  held_devices >"$results/held-after"
  journalctl --sync
  journalctl -b --no-pager -q -o json "SHUTTERD_SESSION=$scene" >"$results/story"
  mkdir -p "$results/media"
  cp -r "/var/lib/shutterd/media/$scene" "$results/media/"
}

main_pid() {
  systemctl show -p MainPID --value "$service"
}

restarts() {
  systemctl show -p NRestarts --value "$service"
}

worker_pid() {
  pgrep -f "worker --link .* --session $scene" || true
}

# restarted COUNT: systemd has restarted the daemon more often than that, and it is ready.
restarted() {
  (($(restarts) > $1)) && systemctl is-active --quiet "$service"
}

# save EXIT_CODE: what helps to look into a failure.
save() {
  journalctl -b -o short-monotonic --no-pager -u "$service" >"$RESULTS/journal.log" || true
  cp "$work"/*.log "$RESULTS/" || true
  if (($1 != 0)); then
    say "failed; the service's last lines:"
    tail -n 60 "$RESULTS/journal.log" || true
  fi
}
