#!/bin/bash
# Try cluster/launch/ray-up.yaml for real: `ray up`, a run over the cluster, `ray down`, on hosts of this one machine.
#
#   scripts/try_ray_up.sh [DIRECTORY]      the run's directory is left in DIRECTORY (default: none is kept)
#
# Three hosts with sshd and a desk without, each with network, process, mount and host name of its own (namespaces), its
# own home and its own copy of this repository, which `ray up` puts there with rsync. They share the machine's .venv, so
# nothing is installed. Needs root, ip, unshare, sshd, rsync and a .venv; exit status 77, with the reason, where it has not.
# Environment: VENV (default .venv), AAR_HOSTS (prefix of names; default aarup), AAR_NET (first three bytes; default 10.78.9)
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd -P)
VENV=$(cd "${VENV:-$ROOT/.venv}" 2>/dev/null && pwd -P) || { echo "there is no .venv: make, or name another as VENV" >&2; exit 77; }
NAME=${AAR_HOSTS:-aarup}
NET=${AAR_NET:-10.78.9}
KEEP=${1:-}
HOSTS=3
DESK=$HOSTS

[ "$(id -u)" = 0 ] || { echo "not root: network namespaces cannot be made" >&2; exit 77; }
for tool in ip unshare nsenter sshd ssh ssh-keygen rsync; do
	command -v "$tool" >/dev/null || PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null ||
		{ echo "there is no $tool: apt-get install openssh-server rsync iproute2 util-linux" >&2; exit 77; }
done
PATH=$PATH:/usr/sbin
STATE=$(mktemp -d "${TMPDIR:-/tmp}/$NAME.XXXXXX")
[ -z "$KEEP" ] || KEEP=$(realpath "$KEEP")

address() { echo "$NET.$((10 + $1))"; }
inside() { # HOST COMMAND…: as a login there would
	local host=$1
	shift
	nsenter --target "$(cat "$STATE/$host/pid")" --net --mount --uts --pid -- \
		env -i -C "$ROOT" HOME="$STATE/home" PATH="$VENV/bin:$PATH" PYTHONPATH="$ROOT" LANG=C.UTF-8 TERM=dumb "$@"
}

down() {
	local status=$?
	trap - EXIT
	for host in $(seq 0 $DESK); do
		# The first process of a process namespace takes all others along.
		[ ! -s "$STATE/$host/pid" ] || kill -9 "$(cat "$STATE/$host/pid")" 2>/dev/null || true
		ip netns del "$NAME$host" 2>/dev/null || true
	done
	ip netns del "$NAME"hub 2>/dev/null || true
	wait 2>/dev/null || true
	rm -rf "$STATE"
	exit "$status"
}
trap down EXIT
trap 'exit 130' INT TERM

make_hosts() {
	ip netns add "$NAME"hub 2>/dev/null || { echo "ip netns does not work here" >&2; exit 77; }
	ip -n "$NAME"hub link add br0 type bridge forward_delay 0
	ip -n "$NAME"hub link set br0 up
	# The same user, at home elsewhere: what is written there is this host's.
	sed "s#^\(root:[^:]*:[^:]*:[^:]*:[^:]*:\)[^:]*:[^:]*#\1$STATE/home:/bin/bash#" /etc/passwd >"$STATE/passwd"
	mkdir -p "$STATE/home" /run/sshd
	ssh-keygen -q -t ed25519 -N '' -f "$STATE/key"
	for host in $(seq 0 $DESK); do
		local own=$STATE/$host
		mkdir -p "$own/home/.ssh" "$own/tmp" "$own/tree"
		cp -r /etc/skel/. "$own/home"
		cp "$STATE/key.pub" "$own/home/.ssh/authorized_keys"
		ip netns add "$NAME$host"
		ip link add "$NAME$host" netns "$NAME"hub type veth peer name eth0 netns "$NAME$host"
		ip -n "$NAME"hub link set "$NAME$host" master br0 up
		ip -n "$NAME$host" link set lo up
		ip -n "$NAME$host" addr add "$(address "$host")/24" dev eth0
		ip -n "$NAME$host" link set eth0 up
		ip -n "$NAME$host" route add default via "$NET.1" # leads nowhere; by it Ray finds its own address
		local tree="mount --bind $own/tree $ROOT &&"
		[ "$host" != $DESK ] || tree=
		ip netns exec "$NAME$host" unshare --uts --mount --pid --fork --kill-child --mount-proc bash -c "
			hostname $NAME$host && mount --bind $own/home $STATE/home && mount --bind $STATE/passwd /etc/passwd &&
			mkdir -p $own/tmp/ray && mkdir -p /tmp/ray && mount --bind $own/tmp/ray /tmp/ray && $tree
			cd / && touch $own/ready && while :; do sleep 3600 & wait; done" </dev/null >"$own/log" 2>&1 &
		local outer=$!
		for _ in $(seq 100); do [ ! -e "$own/ready" ] || break; sleep 0.1; done
		[ -e "$own/ready" ] || { cat "$own/log" >&2; echo "host $host could not be made" >&2; exit 1; }
		pgrep -P "$outer" >"$own/pid"
		[ "$host" = $DESK ] || start_sshd "$host"
	done
}

start_sshd() {
	local own=$STATE/$1
	ssh-keygen -q -t ed25519 -N '' -f "$own/host_key"
	cat >"$own/sshd_config" <<-END
		HostKey $own/host_key
		PidFile none
		UsePAM no
		PasswordAuthentication no
		PermitRootLogin yes
		StrictModes no
		PrintMotd no
		SetEnv PYTHONPATH=$ROOT
	END
	inside "$1" "$(command -v sshd)" -D -f "$own/sshd_config" -E "$own/sshd.log" </dev/null >/dev/null 2>&1 &
}

# The manifest as it is, but for what its comments say is to be replaced, the place of the repository (its own path, bound
# to a directory of each host: so that compiled kernels are found), and the installation.
write_config() {
	"$VENV/bin/python" - "$ROOT" "$STATE" "$VENV" "$(address 0)" "$(address 1)" "$(address 2)" >"$STATE/ray-up.yaml" <<-'END'
		import sys
		from pathlib import Path

		import yaml

		root, state, venv, head, *workers = sys.argv[1:]
		text = (Path(root) / "cluster/launch/ray-up.yaml").read_text()
		text = text.replace("~/aar-swarm/.venv", venv).replace("~/aar-swarm", root).replace("192.0.2.10", head)
		config = yaml.safe_load(text)
		config["provider"]["worker_ips"] = workers
		config["auth"]["ssh_private_key"] = f"{state}/key"
		config["setup_commands"][0] = f"test -f {root}/pyproject.toml"
		print(yaml.safe_dump(config))
	END
}

nodes() {
	inside 0 env RAY_AUTH_MODE=token "$VENV/bin/python" -c "
import ray
ray.init(address='$(address 0):6379', logging_level='ERROR', log_to_driver=False)
print(sum(node['Alive'] for node in ray.nodes()))"
}

make_hosts
write_config
inside $DESK bash -c 'mkdir -p ~/.ray && umask 077 && python -c "import secrets; print(secrets.token_hex(32), end=str())" > ~/.ray/auth_token'
cd "$ROOT"
echo "== ray up"
inside $DESK ray up -y --no-config-cache "$STATE/ray-up.yaml" 2>&1 | tee "$STATE/up.log" | tail -n 5
for _ in $(seq 60); do
	[ "$(nodes 2>/dev/null)" != $HOSTS ] || break
	sleep 1
done
echo "nodes: $(nodes)"
[ "$(nodes)" = $HOSTS ] || { tail -n 50 "$STATE/up.log" "$STATE"/*/tmp/ray/session_latest/logs/monitor* >&2; exit 1; }
echo "== aar run"
inside 0 env RAY_AUTH_MODE=token python -m aar_swarm.cli run exit-door --size small --address "$(address 0):6379" --out "$STATE/home/run" --json
[ -z "$KEEP" ] || cp -r "$STATE/0/home/run" "$KEEP"
echo "== ray down"
inside $DESK ray down -y "$STATE/ray-up.yaml" 2>&1 | tail -n 30
for second in $(seq 0 10 120); do
	for host in $(seq 0 $((HOSTS - 1))); do
		echo "$second s after: host $host: $(inside $host pgrep -c raylet || true) raylets left"
	done
	sleep 10
done
