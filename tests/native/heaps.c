/* Several heaps, epochs, named blocks and roots: `heaps make`, killed, then `heaps again`. */
#include "check.h"
#include "perm.h"

struct book {
  int pages;
};

static struct book book;

static perm_heap *open_heap(const char *path, const char *backup_path) {
  perm_options options = PERM_OPTIONS;
  perm_heap *heap;
  options.path = path;
  options.backup_path = backup_path;
  options.size = 1 << 20;
  options.keep = 4;
  heap = perm_heap_open(&options);
  CHECK(heap != NULL);
  return heap;
}

int main(int argc, char *argv[]) {
  perm_heap *one = open_heap("one.heap", "one.back");
  perm_heap *two = open_heap("two.heap", NULL);
  double *visits = perm_global(one, "visits", sizeof *visits);
  double *visits_there;
  perm_report report;
  perm_epoch epochs[8];
  perm_stats stats;
  long listed;
  CHECK(argc == 2 && visits != NULL);
  CHECK(perm_heap_perm(two, "book", &book, sizeof book) == 0);

  if (strcmp(argv[1], "make") == 0) {
    char *text = perm_heap_malloc(one, 6);
    int i;
    memcpy(text, "hello", 6);
    CHECK(perm_set_root(one, text) == 0);
    for (i = 1; i <= 3; i++) {
      *visits = i;
      CHECK(perm_commit(one, PERM_MAP, &report) == 0 && report.epoch == (uint64_t)i && report.pages > 0);
    }
    CHECK(perm_commit(one, PERM_MAP, &report) == 0 && report.epoch == 3 && report.pages == 0);
    CHECK(perm_commit(one, PERM_BACKUP, &report) == 0);
    CHECK(perm_heap_free(two, text) == -1 && perm_error_code() == PERM_BAD_POINTER);
    CHECK(perm_owns(one, text) && !perm_owns(two, text) && !perm_owns(one, &book));
    book.pages = 300;
    CHECK(perm_commit(two, PERM_MAP, NULL) == 0);
    book.pages = 301;
    *visits = 99;
    printf("made\n");
    DIE();
  }
  /* What TypeScript made, whose layouts C does not know. */
  visits_there = perm_global(two, "elsewhere", sizeof *visits_there);
  CHECK(visits_there != NULL && *visits_there == 2.5);
  CHECK(book.pages == 300 && *visits == 3 && strcmp(perm_root(one), "hello") == 0);
  listed = perm_epochs(one, PERM_MAP, epochs, 8);
  CHECK(listed >= 3 && epochs[0].epoch == 1 && epochs[listed - 1].epoch == 3 && epochs[0].time > 0);
  CHECK(perm_epochs(one, PERM_MAP, NULL, 0) == listed);
  CHECK(perm_restore(one, PERM_MAP, 2, &report) == 0 && report.epoch == 2);
  visits = perm_global(one, "visits", sizeof *visits);
  CHECK(*visits == 2);
  CHECK(perm_stat(one, &stats) == 0 && stats.live_blocks > 0 && stats.capacity >= 1 << 20);
  CHECK(perm_check(one) == 0 && perm_check(two) == 0);
  CHECK(perm_grow(one, 1 << 22) == 0 && perm_stat(one, &stats) == 0 && stats.capacity >= 1 << 22);
  CHECK(perm_grow(one, (uint64_t)1 << 60) == -1 && perm_error_code() == PERM_OUT_OF_MEMORY);
  CHECK(perm_bclose(one) == 0 && perm_bclose(one) == -1 && perm_error_code() == PERM_NOT_OPEN);
  CHECK(perm_heap_unperm(two, "book") == 0 && perm_heap_unperm(two, "book") == -1);
  CHECK(perm_heap_close(one) == 0 && perm_heap_close(one) == -1 && perm_error_code() == PERM_CLOSED);
  CHECK(perm_heap_close(two) == 0);
  printf("again\n");
  return 0;
}
