# Perl: hashes that grow, closures, a compiled pattern, an open file and a child at the end of a pipe.
use strict;
use warnings;

my $dir = shift;
open my $random, '<:raw', '/dev/urandom' or die;
read $random, my $bytes, 16;
my $nonce = unpack 'H*', $bytes;

sub fnv1a {
    use integer;
    my $value = 0xcbf29ce484222325 | 0;
    $value = ($value ^ ord $_) * 0x100000001b3 for split //, shift;
    return sprintf '%016x', $value;
}

sub say_it {
    my ($name, $text) = @_;
    open my $file, '>', "$dir/.$name" or die;
    print $file $text;
    close $file;
    rename "$dir/.$name", "$dir/$name";
}

my %squares;
my @adders = map { my $n = $_; sub { $n += shift } } 1 .. 1000;
my $pattern = qr/^(\w+)-(\d+)$/;
open my $log, '+>>', "$dir/lines" or die;
$log->autoflush(1);
print $log "line $_\n" for 1 .. 1000;
my $child = open my $pipe, '|-' or 0;
unless ($child) {
    my $sum = 0;
    $sum += $_ while <STDIN>;
    say_it('sum', $sum);
    exit 0;
}
$pipe->autoflush(1);
print $pipe "$_\n" for 1 .. 100;

say_it('ready', "$$ " . fnv1a($nonce) . "\n");
my $round = 0;
until (-e "$dir/go") {
    $round++;
    $squares{"key-$round"} = $round * $round;
    $adders[$round % 1000]->(1);
    select undef, undef, undef, 0.001;
}

my $wrong = '';
for my $key (keys %squares) {
    $key =~ $pattern or $wrong .= "key $key; ";
    $squares{$key} == $2 * $2 or $wrong .= "square of $key; ";
}
my $added = 0;
$added += $adders[$_ - 1]->(0) - $_ for 1 .. 1000;
$added == $round or $wrong .= "added $added in $round rounds; ";
print $pipe "$_\n" for 101 .. 200;
close $pipe or $wrong .= "child $?; ";
open my $sum, '<', "$dir/sum" or die;
(<$sum> // '') eq '20100' or $wrong .= 'sum; ';
seek $log, 0, 0;
my @lines = <$log>;
@lines == 1000 or $wrong .= scalar(@lines) . ' lines; ';
say_it('result', ($wrong || 'ok') . "\n$nonce\n");
exit($wrong ? 1 : 0);
