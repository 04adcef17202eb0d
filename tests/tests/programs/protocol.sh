# What every shell program here needs: the nonce, ready, go, result.
dir=$1
nonce=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

fnv1a() {
    local value=$((0xcbf29ce484222325)) index byte
    for ((index = 0; index < ${#1}; index++)); do
        printf -v byte %d "'${1:index:1}"
        value=$(((value ^ byte) * 0x100000001b3))
    done
    printf %016x "$value"
}

say() {
    printf '%s\n' "$2" > "$dir/.$1"
    mv "$dir/.$1" "$dir/$1"
}

ready() {
    say ready "$$ $(fnv1a "$nonce")"
}

await() {
    until [ -e "$dir/$1" ]; do sleep 0.05; done
}

finish() {
    say result "$1
$nonce"
    [ "$1" = ok ]
    exit
}
