# A pipeline in mid-flow: the first command has written half of what it has to say.
. "${0%/*}/protocol.sh"
total=20000

count() {
    local index
    for ((index = 1; index <= total / 2; index++)); do echo "$index $nonce"; done
    touch "$dir/half"
    await go
    for (( ; index <= total; index++)); do echo "$index $nonce"; done
}

{
    await half
    ready
} &
count | tr a-z A-Z | tee "$dir/copy" | sort -rn | awk '{ sum += $1; last = $0 } END { print NR, sum, last }' > "$dir/out"
wait
[ "$(cat "$dir/out")" = "$total $((total * (total + 1) / 2)) 1 ${nonce^^}" ] || finish "pipeline: $(cat "$dir/out")"
[ "$(wc -l < "$dir/copy")" = $total ] || finish "copy has $(wc -l < "$dir/copy") lines"
finish ok
