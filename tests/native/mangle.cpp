// PERM_MANGLE in C++: malloc and std::malloc are the heap's, whatever is included afterwards. There is
// no PERM variable here: the block is empty.
#define PERM_MANGLE
#include "perm.h"
#include "check.h"
#include <cstdlib>
#include <cstring>
#include <string>

int main() {
  CHECK(PERM_SIZE == 0 && perm(PERM_START, PERM_SIZE) == 0);
  CHECK(malloc(1) == nullptr && perm_error_code() == PERM_NOT_OPEN);
  CHECK(mopen(nullptr, "w+", 1 << 20) == 0);
  void *one = malloc(10), *two = std::malloc(10), *three = strdup("three");
  CHECK(perm_owns(nullptr, one) && perm_owns(nullptr, two) && perm_owns(nullptr, three));
  one = std::realloc(one, 1000);
  two = realloc(two, 1000);
  std::string text(100, 'x'); // the C++ library's own memory is not touched
  CHECK(!perm_owns(nullptr, text.data()));
  perm_clear_error();
  std::free(one);
  free(two);
  free(three);
  CHECK(perm_error_code() == PERM_OK);
  printf("mangled\n");
  return 0;
}
