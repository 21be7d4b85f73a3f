/* libmosix.so for 32-bit programs of an adopted tree: nothing. They stay at home; that this file exists keeps
   their dynamic loader from printing "wrong ELF class" on every start (LD_PRELOAD names it through $LIB). */
extern int mosix_other_word_size __attribute__((visibility("hidden")));
int mosix_other_word_size;
