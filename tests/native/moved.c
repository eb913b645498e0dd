/* One PERM global and a pointer to it from the heap: `moved w+`, then `moved r+` or `moved restore`. */
#include "check.h"
#include "perm.h"

PERM long number = 7;
PERM char text[16] = "before";

int main(int argc, char *argv[]) {
  int from_backup = strcmp(argv[1], "restore") == 0;
  CHECK(argc == 2);
  CHECK(perm(PERM_START, PERM_SIZE) == 0);
  if (strcmp(argv[1], "w+") == 0) {
    long **points;
    CHECK(mopen("moved.heap", "w+", 1 << 20) == 0 && bopen("moved.back", "w+") == 0);
    points = perm_malloc(sizeof *points);
    *points = &number;
    CHECK(perm_set_root(NULL, points) == 0);
    number = 42;
    strcpy(text, "after");
    CHECK(backup() == 0 && mclose() == 0);
    printf("made\n");
    return 0;
  }
  if (from_backup) {
    CHECK(mopen(NULL, "w+", 1 << 20) == 0 && bopen("moved.back", "r+") == 0);
    if (restore() == 0) goto compare;
  } else if (mopen("moved.heap", "r+", 0) == 0) {
    goto compare;
  }
  /* Refused: nothing of the program was touched, and it can go on with another heap. */
  CHECK(errno == EINVAL);
  CHECK(number == 7 && strcmp(text, "before") == 0);
  printf("%s: %s\n", perm_code_name(perm_error_code()), perm_error());
  if (from_backup) {
    CHECK(perm_check(NULL) == 0 && mclose() == 0);
  } else {
    CHECK(mopen(NULL, "w+", 0) == 0);
  }
  return 0;
compare:
  CHECK(number == 42 && strcmp(text, "after") == 0);
  CHECK(*(long **)perm_root(NULL) == &number);
  printf("same\n");
  return 0;
}
