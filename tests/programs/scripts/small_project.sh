# make -j4 of a project with twenty sources, a library and a test that runs; then once more, with nothing to do.
mkdir -p src && cd src
for i in $(seq 1 20); do
  {
    echo "#include <stdlib.h>"
    for j in $(seq 1 30); do
      echo "int part_${i}_$j(int x) { int s = 0; for (int k = 0; k < x; k++) s += (k * $j) % ($i + 1); return s; }"
    done
    echo "int unit_$i(int x) { return part_${i}_1(x)$(for j in $(seq 2 30); do printf ' + part_%d_%d(x)' "$i" "$j"; done); }"
  } >"unit_$i.c"
done
{
  echo '#include <stdio.h>'
  for i in $(seq 1 20); do echo "int unit_$i(int);"; done
  echo 'int main(void) { long total = 0;'
  for i in $(seq 1 20); do echo "  total += unit_$i(100);"; done
  echo '  printf("%ld\n", total); return 0; }'
} >main.c
cat >Makefile <<'MAKE'
OBJECTS := $(patsubst %.c,%.o,$(filter-out main.c,$(sort $(wildcard *.c))))
all: check
libunits.a: $(OBJECTS)
	@ar rcD $@ $^
program: main.o libunits.a
	@gcc -o $@ main.o libunits.a
%.o: %.c
	@gcc -O1 -c $< -o $@
check: program
	@./program > result
.PHONY: all
MAKE
$1 make -j4 --no-print-directory
echo "make: $?"
cat result
ar t libunits.a | sort | sha256sum
$1 make --no-print-directory -q program
echo "again: $?"
