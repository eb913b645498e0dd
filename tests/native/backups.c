/*
 * A program that only ever backs up: its map file is there from mopen() on, as PERM's is, and what it
 * goes on from is the backup. `backups w+`, `backups r+`; `backups lost` has no map file any more.
 */
#include "check.h"
#include "perm.h"

PERM int number = 1;
PERM char *text;
static int outside = 1;

int main(int argc, char *argv[]) {
  CHECK(argc == 2 && PERM_SIZE >= sizeof number + sizeof text && PERM_SIZE < 64);
  CHECK((char *)&number >= (char *)PERM_START && (char *)(&text + 1) <= (char *)PERM_END);
  CHECK(perm(PERM_START, PERM_SIZE) == 0);
  if (strcmp(argv[1], "w+") == 0) {
    CHECK(mopen("only.mmap", "w+", 1 << 20) == 0 && access("only.mmap", R_OK) == 0);
    CHECK(bopen("only.back", "w+") == 0);
    text = perm_strdup("kept");
    number = 2;
    CHECK(backup() == 0);
    number = 3;
    outside = 3;
    DIE();
  }
  if (strcmp(argv[1], "lost") == 0) {
    CHECK(mopen(NULL, "w+", 1 << 20) == 0);
  } else {
    CHECK(mopen("only.mmap", "r+", 0) == 0 && number == 1 && text == NULL);
  }
  CHECK(bopen("only.back", "r+") == 0 && number == 1);
  CHECK(restore() == 0);
  CHECK(number == 2 && outside == 1 && strcmp(text, "kept") == 0);
  perm_free(text);
  CHECK(perm_error_code() == PERM_OK && perm_check(NULL) == 0);
  CHECK(unperm(PERM_START) == 0 && unperm(PERM_START) == -1);
  CHECK(mclose() == 0 && bclose() == 0);
  printf("kept\n");
  return 0;
}
