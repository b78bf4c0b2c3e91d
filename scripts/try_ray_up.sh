#!/bin/bash
# Try cluster/launch/ray-up.yaml for real: `ray up`, a run over the cluster, `ray down`, on hosts of this one machine.
#
#   try_ray_up.sh [DIRECTORY]    the run is kept in DIRECTORY, which must not be there (default: it is not kept)
#
# Four hosts by test_hosts.sh: three with sshd, and a desk from which they are started. Each has a home of its own and,
# at the path of this repository, a copy that `ray up` makes there with rsync. Python and the dependencies are this
# machine's, so nothing is installed. It fails where a worker's Ray has not ended two minutes after `ray down`.
# Needs root, openssh-server, rsync and what test_hosts.sh needs; exit status 77 and the reason where something is not here.
# Environment: that of test_hosts.sh.
set -euo pipefail
PATH=$PATH:/usr/sbin
export AAR_HOSTS_PREFIX=${AAR_HOSTS_PREFIX:-aarup}
ROOT=$(cd "$(dirname "$0")/.." && pwd -P)
HOSTS=$ROOT/scripts/test_hosts.sh
PYTHON=${AAR_HOSTS_PYTHON:-$ROOT/.venv/bin/python}
BIN=$(dirname "$PYTHON")
STATE=${TMPDIR:-/tmp}/$AAR_HOSTS_PREFIX-hosts
OURS=$STATE/up
KEEP=${1:+$(realpath "$1")}
DESK=3
WORKERS=2
SSH_SOCKETS=/tmp/ray_ssh_$(printf root | md5sum | cut -c1-10) # the same for all of a user's `ray up`
LEFT_S=120 # a raylet ends by itself when it has not reached the head for a minute

unable() { echo "try_ray_up: $*" >&2; exit 77; }
address() { echo "10.77.0.$((10 + $1))"; } # of test_hosts.sh

as_login() { # HOST COMMAND…: with that host's home, in its copy of the repository
  local host=$1
  shift
  "$HOSTS" exec "$host" env -u RAY_ADDRESS -u RAY_AUTH_TOKEN_PATH -C "$ROOT" HOME="$OURS/home" USER=root \
    PATH="$BIN:$PATH" PYTHONPATH="$ROOT" "$@"
}

make_hosts() {
  "$HOSTS" up $((DESK + 1)) || unable "no hosts here"
  [ -e "$SSH_SOCKETS" ] && trap '"$HOSTS" down' EXIT || trap '"$HOSTS" down; rm -rf "$SSH_SOCKETS"' EXIT
  trap 'exit 130' INT TERM
  mkdir -p "$OURS/home" /run/sshd
  ssh-keygen -q -t ed25519 -N '' -f "$OURS/key"
  # The same user, at home elsewhere.
  sed "s#^\(root:[^:]*:[^:]*:[^:]*:[^:]*:\)[^:]*:[^:]*#\1$OURS/home:/bin/bash#" /etc/passwd >"$OURS/passwd"
  for host in $(seq 0 $DESK); do
    local own=$OURS/$host
    mkdir -p "$own/home/.ssh" "$own/tree"
    cp -r /etc/skel/. "$own/home"
    cp "$OURS/key.pub" "$own/home/.ssh/authorized_keys"
    "$HOSTS" exec "$host" mount --bind "$OURS/passwd" /etc/passwd
    if [ "$host" = $DESK ]; then # test_hosts.sh hides our code; it is the desk that has it
      "$HOSTS" exec "$host" umount "$ROOT/aar_swarm" "$ROOT/cluster" "$ROOT/exchange"
    else
      "$HOSTS" exec "$host" mount --bind "$own/tree" "$ROOT"
      start_sshd "$host"
    fi
    "$HOSTS" exec "$host" mount --bind "$own/home" "$OURS/home"
  done
}

start_sshd() { # HOST
  local own=$OURS/$1
  ssh-keygen -q -t ed25519 -N '' -f "$own/host_key"
  cat >"$own/sshd_config" <<END
HostKey $own/host_key
PidFile none
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
StrictModes no
SetEnv PYTHONPATH=$ROOT
END
  "$HOSTS" exec "$1" env -u RAY_ADDRESS -u RAY_AUTH_TOKEN_PATH "$(command -v sshd)" -D -f "$own/sshd_config" \
    </dev/null >"$own/sshd.log" 2>&1 &
}

# The manifest as it is, but for what it says is to be replaced, the place of the repository (its path here, so that
# compiled kernels are found) and the installation.
write_config() {
  "$PYTHON" - "$ROOT" "$OURS/key" "$BIN" "$(address 0)" "$(address 1)" "$(address 2)" >"$OURS/ray-up.yaml" <<'END'
import sys
from pathlib import Path

import yaml

root, key, programs, head, *workers = sys.argv[1:]
text = (Path(root) / "cluster/launch/ray-up.yaml").read_text()
text = text.replace("~/aar-swarm/.venv/bin", programs).replace("~/aar-swarm", root).replace("192.0.2.10", head)
config = yaml.safe_load(text)
config["provider"]["worker_ips"] = workers
config["auth"]["ssh_private_key"] = key
config["setup_commands"][0] = f"test -f {root}/pyproject.toml"
print(yaml.safe_dump(config))
END
}

living() {
  as_login 0 python -c "
import ray
ray.init(address='$(address 0):6379', logging_level='ERROR', log_to_driver=False)
print(sum(node['Alive'] for node in ray.nodes()))" 2>"$OURS/living.log" || echo 0
}

raylets() { # how many hosts have one
  local found=0
  for host in $(seq 0 $WORKERS); do
    ! "$HOSTS" exec "$host" pgrep -x raylet >/dev/null || found=$((found + 1))
  done
  echo $found
}

[ "$(id -u)" = 0 ] || unable "namespaces need root"
for tool in ip unshare nsenter pgrep ssh ssh-keygen sshd rsync; do
  command -v "$tool" >/dev/null || unable "there is no $tool: apt-get install openssh-server rsync"
done
[ -x "$PYTHON" ] || unable "$PYTHON is no Python: set AAR_HOSTS_PYTHON"
[ -z "$KEEP" ] || [ ! -e "$KEEP" ] || unable "$KEEP is there already"
make_hosts
write_config
as_login $DESK bash -c 'ray get-auth-token --generate >/dev/null'
echo "== ray up"
as_login $DESK ray up -y --no-config-cache "$OURS/ray-up.yaml" >"$OURS/up.log" 2>&1 || { cat "$OURS/up.log" >&2; exit 1; }
for _ in $(seq 60); do
  nodes=$(living)
  [ "$nodes" != $((WORKERS + 1)) ] || break
  sleep 1
done
echo "nodes: $nodes"
[ "$nodes" = $((WORKERS + 1)) ] ||
  { cat "$OURS/up.log" >&2; as_login 0 bash -c 'tail -n 50 /tmp/ray/session_latest/logs/monitor*' >&2; exit 1; }
echo "== aar run"
as_login 0 python -m aar_swarm.cli run exit-door --size small --address auto --out "$OURS/home/run" --json
[ -z "$KEEP" ] || cp -r "$OURS/0/home/run" "$KEEP"
echo "== ray down"
as_login $DESK ray down -y "$OURS/ray-up.yaml" >"$OURS/down.log" 2>&1 || { cat "$OURS/down.log" >&2; exit 1; }
echo "hosts with Ray: $(raylets)"
SECONDS=0
while [ "$(raylets)" != 0 ] && [ $SECONDS -lt $LEFT_S ]; do sleep 2; done
echo "hosts with Ray after $SECONDS s: $(raylets)"
[ "$(raylets)" = 0 ]
