# gcc at work: what it makes must not depend on what happened meanwhile.
. "${0%/*}/protocol.sh"
for ((index = 0; index < 60; index++)); do
    echo "double f$index(double *a, int n) { double s = $index; for (int i = 0; i < n; i++)
        for (int j = i; j < n; j++) { s += a[i] * a[j] / (1 + s); if (s > $index.5) s -= a[j]; a[i] = s; } return s; }"
done > "$dir/source.c"

compile() {
    gcc -O3 -S "$dir/source.c" -o "$1"
}

compile "$dir/one.s" &
compiler=$!
until [ -n "$(cat /proc/$compiler/task/*/children)" ]; do sleep 0.02; done
sleep 0.3
ready
wait $compiler || finish "compiler: $?"
await go
compile "$dir/two.s" || finish "second compiler: $?"
cmp "$dir/one.s" "$dir/two.s" || finish "what was compiled differs"
finish ok
