# Text and processes in perl: hashes, regular expressions, sorting, pipes, fork and signals.
use strict;
use warnings;
$| = 1;
my ($seed, %count) = (12345);
sub next_number { $seed = ($seed * 1103515245 + 12345) % 2147483648; return $seed >> 8 }
for (1 .. 200000) {
    my $word = join '', map { chr(97 + next_number() % 5) } 1 .. 3;
    $count{$word}++;
}
my @words = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
print scalar(@words), " words, first @words[0 .. 4]\n";
my $text = join ' ', @words;
my $vowels = () = $text =~ /[ae]/g;
(my $changed = $text) =~ s/\b(\w)(\w)(\w)\b/$3$2$1/g;
print "$vowels vowels, ", length($changed), " characters\n";
my @children;
for my $number (1 .. 5) {
    my $pid = fork();
    if ($pid == 0) { exit $number * 2 }
    push @children, $pid;
}
print join(' ', map { waitpid($_, 0); $? >> 8 } @children), "\n";
open(my $pipe, '-|', 'seq 1 100 | tail -n 2') or die;
print map { chomp; "[$_]" } <$pipe>;
print "\n";
close $pipe;
my $hits = 0;
local $SIG{USR1} = sub { $hits++ };
kill 'USR1', $$ for 1 .. 4;
local $SIG{ALRM} = sub { die "alarm\n" };
eval { alarm 1; select(undef, undef, undef, 30); };
print "hits $hits, then $@";
exit 2;
