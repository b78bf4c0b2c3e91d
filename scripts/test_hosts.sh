#!/bin/bash
# N hosts on one machine, and a real Ray cluster across them: for tests of what only several machines can show.
#
#   test_hosts.sh up N           make N hosts (network, pid, UTS and mount namespaces); host 0 is the head's
#   test_hosts.sh ray-up         start Ray on all of them, with a token; host 0 has the resource `exchange`
#   test_hosts.sh ray-down       stop Ray
#   test_hosts.sh exec I CMD…    run CMD on host I, with the cluster's address and token in its environment
#   test_hosts.sh kill-node I    host I loses power: its link first, so that nothing says farewell, then all processes
#   test_hosts.sh cut I | join I take host I off the network, put it back
#   test_hosts.sh status         Ray's own view
#   test_hosts.sh down           end and remove everything, whatever state it is in
#
# Needs root, iproute2 and util-linux. Environment:
#   AAR_HOSTS_PREFIX  begins every name (default aar; at most 6 letters and digits): two sets can live side by side
#   AAR_HOSTS_CPUS    cores that each host tells Ray of (default 4; all hosts share this machine's)
#   AAR_HOSTS_PYTHON  the Python that has Ray (default: .venv's of this tree)
#   TMPDIR            the state is kept there, in PREFIX-hosts
#
# A host has its own addresses, ports, process numbers, name, /tmp/ray and TMPDIR. Hosts beyond 0 have Python and the
# dependencies, but not this project's code: the folders are empty there. All share one kernel, so one clock.
set -u
PREFIX=${AAR_HOSTS_PREFIX:-aar}
[[ $PREFIX =~ ^[a-z0-9]{1,6}$ ]] || { echo "AAR_HOSTS_PREFIX=$PREFIX: at most 6 small letters and digits" >&2; exit 2; }
ROOT=$(cd "$(dirname "$0")/.." && pwd)
SELF=$ROOT/scripts/test_hosts.sh
STATE=${TMPDIR:-/tmp}/$PREFIX-hosts
PYTHON=${AAR_HOSTS_PYTHON:-$ROOT/.venv/bin/python}
CPUS=${AAR_HOSTS_CPUS:-4}
NET=10.77.0       # of the hosts' own bridge, which no other set and nothing of this machine sees
PORT=6379
HUB=$PREFIX-hub
START_S=120       # longest that Ray may take to start on one host
OBJECT_STORE_BYTES=104857600

fail() { echo "test_hosts: $*" >&2; exit 2; }
address() { echo "$NET.$((10 + $1))"; }
count() { cat "$STATE/count" 2>/dev/null || echo 0; }
init_pid() { cat "$STATE/$1/pid" 2>/dev/null || fail "there is no host $1; begin with: $0 up N"; }

on_host() { # I CMD…
  local i=$1 pid; shift
  pid=$(init_pid "$i") || exit 2
  [ -d "/proc/$pid" ] || fail "host $i has no power"
  nsenter -t "$pid" -n -m -u -p -- env TMPDIR="$STATE/$i/tmp" RAY_ADDRESS="$(address 0):$PORT" RAY_AUTH_MODE=token \
    RAY_AUTH_TOKEN_PATH="$STATE/token" RAY_USAGE_STATS_ENABLED=0 "$@"
}

code_folders() { # where Python would find this project: the tree, and what the environment has installed
  printf '%s\n' "$ROOT/aar_swarm" "$ROOT/cluster" "$ROOT/exchange"
  (cd / && env -u PYTHONPATH "$PYTHON" -c '
import importlib.util
for name in ("aar_swarm", "cluster", "exchange"):
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations if spec else ()):
        print(folder)')
}

start_host() { # I
  local i=$1 outer hide=""
  mkdir -p "$STATE/$i/ray" "$STATE/$i/tmp" "$STATE/empty"
  ip netns add "$PREFIX-$i"
  ip link add "$PREFIX-v$i" netns "$HUB" type veth peer name eth0 netns "$PREFIX-$i"
  ip -n "$HUB" link set "$PREFIX-v$i" master br0 up
  ip -n "$PREFIX-$i" link set lo up
  ip -n "$PREFIX-$i" address add "$(address "$i")/24" dev eth0
  ip -n "$PREFIX-$i" link set eth0 up
  # Leads nowhere, as the hub does not forward: Ray asks for a route to find its own address.
  ip -n "$PREFIX-$i" route add default via $NET.1
  if [ "$i" -gt 0 ]; then
    hide=$(code_folders | sort -u | while read -r folder; do
      [ -d "$folder" ] && printf 'mount --bind %q %q; ' "$STATE/empty" "$folder"; done)
  fi
  # The host's first process reaps the orphans of its host; when it ends, the kernel ends all the others.
  ip netns exec "$PREFIX-$i" unshare --uts --mount --pid --fork --mount-proc --kill-child \
    bash -c "mount --make-rprivate /; hostname $PREFIX-$i; mkdir -p /tmp/ray; mount --bind '$STATE/$i/ray' /tmp/ray; $hide
      touch '$STATE/$i/started'; trap : TERM; while :; do sleep 3600 & wait; done" \
    </dev/null >"$STATE/$i/init.log" 2>&1 &
  outer=$!
  echo "$outer" >"$STATE/$i/outer"
  for ((k = 0; k < 100; k++)); do
    [ -e "$STATE/$i/started" ] && pgrep -P "$outer" >"$STATE/$i/pid" && return
    sleep 0.05
  done
  cat "$STATE/$i/init.log" >&2
  return 1
}

up() { # N
  local n=$1
  [[ $n =~ ^[0-9]+$ && $n -ge 1 && $n -le 20 ]] || fail "up $n: from 1 to 20 hosts"
  [ "$(id -u)" = 0 ] || fail "namespaces need root"
  [ -e "$STATE" ] && fail "$STATE is there already: $0 down, or another AAR_HOSTS_PREFIX"
  [ -x "$PYTHON" ] || fail "$PYTHON is no Python: set AAR_HOSTS_PYTHON"
  mkdir -p "$STATE"
  trap 'down; exit 1' INT TERM
  echo "$n" >"$STATE/count"
  (umask 077; "$PYTHON" -c 'import secrets; print(secrets.token_hex(32), end="")' >"$STATE/token")
  { ip netns add "$HUB" && ip -n "$HUB" link set lo up && ip -n "$HUB" link add br0 type bridge forward_delay 0 &&
    ip -n "$HUB" link set br0 up; } || { down; fail "network namespaces are not permitted here"; }
  for ((i = 0; i < n; i++)); do start_host "$i" || { down; fail "host $i does not start"; }; done
  trap - INT TERM
}

ray_start() { # I ARGUMENTS…
  local i=$1; shift
  # As a module of that Python: the `ray` beside it may be of another.
  timeout $START_S "$SELF" exec "$i" env -u RAY_ADDRESS "$PYTHON" -P -m ray.scripts.scripts start --node-ip-address="$(address "$i")" \
    --num-cpus="$CPUS" --object-store-memory=$OBJECT_STORE_BYTES --disable-usage-stats "$@" \
    >"$STATE/$i/ray.log" 2>&1 || { cat "$STATE/$i/ray.log" >&2; return 1; }
}

ray_up() {
  # From the root directory and without this tree in the path: Ray's own processes know nothing of the project.
  cd / && unset PYTHONPATH
  ray_start 0 --head --port=$PORT --temp-dir=/tmp/ray --include-dashboard=false --resources='{"exchange": 1}' || return 1
  for ((i = 1; i < $(count); i++)); do ray_start "$i" --address="$(address 0):$PORT" || return 1; done
}

ray_down() {
  for ((i = $(count) - 1; i >= 0; i--)); do
    timeout 60 "$SELF" exec "$i" "$PYTHON" -P -m ray.scripts.scripts stop --force >/dev/null 2>&1
  done
}

down() {
  for ((i = 0; i < $(count); i++)); do
    for name in pid outer; do
      pid=$(cat "$STATE/$i/$name" 2>/dev/null) && [ -n "$pid" ] && is_ours "$pid" && kill -9 "$pid" 2>/dev/null
    done
  done
  for name in $(ip netns list 2>/dev/null | cut -d' ' -f1 | grep -E "^$PREFIX-([0-9]+|hub)$"); do
    # What joined the network of a host and not its process numbers.
    for pid in $(ip netns pids "$name" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
    ip netns delete "$name"
  done
  for ((k = 0; k < 50; k++)); do rm -rf "$STATE" 2>/dev/null && break; sleep 0.1; done
  [ ! -e "$STATE" ]
}

is_ours() { # a process number may have passed to another: ours is the first of a host, or the one around it
  tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -q -e "hostname $PREFIX-" -e "netns exec $PREFIX-"
}

link() { ip -n "$HUB" link set "$PREFIX-v$1" "$2" || fail "there is no host $1"; }

usage() { sed -n '2,/^set -u/{/^set -u/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }

case "${1:-}" in
  up) up "${2:-3}" ;;
  ray-up) ray_up ;;
  ray-down) ray_down ;;
  exec) [ $# -ge 3 ] || usage; shift; on_host "$@" ;;
  kill-node) link "$2" down; kill -9 "$(init_pid "$2")" ;;
  cut) link "$2" down ;;
  join) link "$2" up ;;
  status) on_host 0 "$PYTHON" -P -m ray.scripts.scripts status ;;
  down) down ;;
  *) usage ;;
esac
