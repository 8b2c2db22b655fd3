# Process 1 of containerd's own process namespace; standard input is a pipe that the test holds open. A line on it kills
# containerd and has another one started, which finds the shims and pods of the one before.
# When this script ends, for whatever reason, the kernel kills containerd, its shims and every pod with it.
set -eu
mkdir -p /run/containerd /run/netns
# Places that containerd, runc and CNI plugins write to, whatever their configuration says.
for place in /run/containerd /run/netns /var/lib; do
    mount -t tmpfs -o mode=755 dotfour-e2e "$place"
done
again=/run/containerd/e2e-again pid=/run/containerd/e2e-pid
exec 3<&0
{
    while read -r _ <&3; do
        : >"$again"
        kill -KILL "$(cat "$pid")"
    done
    # Process 1 may be about to start one more.
    while :; do
        kill -KILL "$(cat "$pid")" || :
        sleep 0.05
    done
} &
while :; do
    containerd --config "$1" </dev/null 3<&- &
    containerd=$!
    echo "$containerd" >"$pid.new" && mv "$pid.new" "$pid"
    status=0
    wait "$containerd" || status=$?
    [ -e "$again" ] || exit "$status"
    rm "$again"
done
