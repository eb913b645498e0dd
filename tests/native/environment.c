/* A program that knows of no heap: its environment names one, opened at the first allocation. */
#include "check.h"
#include "perm.h"

struct entry {
  struct entry *next;
};

int main(void) {
  struct entry *entry = malloc(sizeof *entry);
  int length = 0;
  if (!entry) {
    printf("%s: %s\n", perm_code_name(perm_error_code()), perm_error());
    return 3;
  }
  CHECK(mopen("other.heap", "w+", 0) == -2);
  entry->next = perm_root(NULL);
  CHECK(perm_set_root(NULL, entry) == 0);
  for (; entry; entry = entry->next) length++;
  printf("%d at %p\n", length, (void *)((uintptr_t)perm_root(NULL) >> 32 << 32));
  return 0; /* and nothing else: the heap is committed at exit */
}
