// All of new and delete in the heap: containers and strings as everybody writes them.
#define PERM_OVERRIDE_NEW
#include "check.h"
#include <map>
#include <memory>
#include <string>
#include <vector>
#include "pallocator.hpp"

typedef std::map<std::string, std::vector<int> > book;

PERM book *home;

// Made before main, without a heap, and freed while one is open.
static std::unique_ptr<std::string> early(new std::string("a text that does not fit into the string itself"));

struct alignas(128) wide {
  char bytes[128];
};

int main(int argc, char *argv[]) {
  bool again = argc > 1 && strcmp(argv[1], "-r") == 0;
  CHECK(!perm_owns(nullptr, early.get()));
  CHECK(perm(PERM_START, PERM_SIZE) == 0);
  CHECK(mopen("override.heap", again ? "r+" : "w+", 1 << 22) == 0);
  perm_clear_error();
  early.reset();
  CHECK(perm_error_code() == PERM_OK);
  if (!again) {
    home = new book;
    CHECK(perm_owns(nullptr, home));
    for (int i = 0; i < 300; i++) (*home)["a chapter with the number " + std::to_string(i)].push_back(i);
    CHECK(mflush() == 0);
    home->clear();
    DIE();
  }
  CHECK(home->size() == 300);
  for (int i = 0; i < 300; i++) CHECK(home->at("a chapter with the number " + std::to_string(i)).at(0) == i);
  int *numbers = new int[100];
  CHECK(perm_owns(nullptr, numbers));
  delete[] numbers;
  CHECK(new (std::nothrow) char[size_t(1) << 60] == nullptr);
  std::string *late = new std::string("another text that does not fit into the string itself");
  perm_clear_error();
  delete home;
  home = nullptr;
  CHECK(perm_error_code() == PERM_OK && perm_check(nullptr) == 0);
  CHECK(mclose() == 0);
  delete late; // where the heap was
  delete new std::string("a third text that does not fit into the string itself");
  CHECK(mopen(nullptr, "w+", 1 << 20) == 0);
  printf("overridden\n");
  return 0;
}
