# Process 1 of containerd's own process namespace; standard input is a pipe that the test holds open.
# When this script ends, for whatever reason, the kernel kills containerd, its shims and every pod with it.
set -eu
mkdir -p /run/containerd /run/netns
# Places that containerd, runc and CNI plugins write to, whatever their configuration says.
for place in /run/containerd /run/netns /var/lib; do
    mount -t tmpfs -o mode=755 dotfour-e2e "$place"
done
containerd --config "$1" </dev/null &
containerd=$!
exec 3<&0
{ cat <&3 >/dev/null; kill -KILL "$containerd"; } &
wait "$containerd"
