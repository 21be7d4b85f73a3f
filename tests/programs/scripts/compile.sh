# Compiles and links a generated C++ program of 2,000 lines, and runs what came out.
set -e
python3 "$PROGRAMS/make_input.py" source 2000 >program.cc
g++ -O1 -c program.cc -o program.o
g++ program.o -o program
./program
g++ -fsyntax-only -x c++ - <<<'int main() { return undeclared; }' 2>&1 | grep -c undeclared
