/*
 * Many blocks of rising size whose addresses and sizes stand in registered globals, with flushes,
 * backups and one restore on the way. `write` and `read` may be two builds of this program: then the
 * globals go by their names, or stand in a section that lies at the same address in both.
 */
#include "check.h"
#include "perm.h"

#define BLOCKS 256

PERM static unsigned char *address[BLOCKS];
PERM static size_t size[BLOCKS];
PERM static size_t total;
PERM static int count;

static size_t size_of(int i) { return i < BLOCKS / 2 ? (size_t)(i + 1) * 7 : (size_t)(i + 1) * 2039; }

static void verify(void) {
  size_t sum = 0;
  int i, k;
  for (i = 0; i < count; i++) {
    size_t at;
    CHECK(address[i] != NULL && size[i] == size_of(i));
    for (k = 0; k < i; k++) CHECK(address[i] + size[i] <= address[k] || address[k] + size[k] <= address[i]);
    for (at = 0; at < size[i]; at++) CHECK(address[i][at] == (unsigned char)i);
    sum += size[i];
  }
  CHECK(sum == total);
}

static void register_all(const char *how) {
  if (strcmp(how, "section") == 0) {
    CHECK(perm(PERM_START, PERM_SIZE) == 0);
  } else if (strcmp(how, "names") == 0) {
    CHECK(perm_named("address", address, sizeof address) == 0);
    CHECK(perm_named("size", size, sizeof size) == 0);
    CHECK(perm_named("total", &total, sizeof total) == 0);
    CHECK(perm_named("count", &count, sizeof count) == 0);
  } else {
    CHECK(perm(address, sizeof address) == 0);
    CHECK(perm(size, sizeof size) == 0);
    CHECK(perm(&total, sizeof total) == 0);
    CHECK(perm(&count, sizeof count) == 0);
  }
}

int main(int argc, char *argv[]) {
  int restored = 0;
  CHECK(argc == 3);
  register_all(argv[2]);
  if (strcmp(argv[1], "read") == 0) {
    CHECK(mopen("blocks.mmap", "r", (size_t)1 << 26) == 0);
    CHECK(count == BLOCKS);
    verify();
    CHECK(perm_check(NULL) == 0);
    CHECK(perm_malloc(1) == NULL && perm_error_code() == PERM_READ_ONLY);
    CHECK(mflush() == -1 && perm_error_code() == PERM_READ_ONLY);
    CHECK(mclose() == 0);
    printf("read %d\n", count);
    return 0;
  }
  CHECK(mopen("blocks.mmap", "w+", (size_t)1 << 26) == 0);
  CHECK(bopen("blocks.back", "w+") == 0);
  while (count < BLOCKS) {
    address[count] = perm_malloc(size_of(count));
    CHECK(address[count] != NULL);
    memset(address[count], count, size_of(count));
    size[count] = size_of(count);
    total += size[count];
    count++;
    if (count % 128 == 64) CHECK(mflush() == 0);
    if (count % 64 == 32) CHECK(backup() == 0);
    if (count == 150 && !restored) {
      restored = 1;
      CHECK(restore() == 0);
      CHECK(count == 96);
      verify();
    }
  }
  verify();
  CHECK(restored);
  CHECK(mclose() == 0);
  CHECK(bclose() == 0);
  printf("wrote %d\n", count);
  return 0;
}
