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

static uint64_t live_blocks() {
  perm_stats stats;
  CHECK(perm_stat(nullptr, &stats) == 0);
  return stats.live_blocks;
}

static void *in_heap(void *memory, uintptr_t alignment) {
  CHECK(perm_owns(nullptr, memory) && reinterpret_cast<uintptr_t>(memory) % alignment == 0);
  return memory;
}

// Each kind of new, and the delete that belongs to it.
static void kinds() {
  const std::align_val_t aligned = std::align_val_t(128);
  uint64_t before = live_blocks();
  ::operator delete(in_heap(::operator new(10), 16));
  ::operator delete(in_heap(::operator new(10), 16), std::size_t(10));
  ::operator delete(in_heap(::operator new(10, std::nothrow), 16), std::nothrow);
  ::operator delete[](in_heap(::operator new[](10), 16));
  ::operator delete[](in_heap(::operator new[](10), 16), std::size_t(10));
  ::operator delete[](in_heap(::operator new[](10, std::nothrow), 16), std::nothrow);
  ::operator delete(in_heap(::operator new(10, aligned), 128), aligned);
  ::operator delete(in_heap(::operator new(10, aligned), 128), std::size_t(10), aligned);
  ::operator delete(in_heap(::operator new(10, aligned, std::nothrow), 128), aligned, std::nothrow);
  ::operator delete[](in_heap(::operator new[](10, aligned), 128), aligned);
  ::operator delete[](in_heap(::operator new[](10, aligned), 128), std::size_t(10), aligned);
  ::operator delete[](in_heap(::operator new[](10, aligned, std::nothrow), 128), aligned, std::nothrow);
  delete static_cast<wide *>(in_heap(new wide, 128));
  delete[] static_cast<wide *>(in_heap(new wide[3], 128));
  CHECK(live_blocks() == before);
}

static int handled;

// Is asked until it gives up.
static void handle() {
  if (++handled == 3) std::set_new_handler(nullptr);
}

static void without_memory() {
  volatile std::size_t absurd = std::size_t(1) << 60;
  std::set_new_handler(handle);
  bool refused = false;
  try {
    ::operator delete(::operator new(absurd));
  } catch (const std::bad_alloc &) {
    refused = true;
  }
  CHECK(refused && handled == 3);
  CHECK(::operator new(absurd, std::align_val_t(128), std::nothrow) == nullptr);
}

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
  kinds();
  without_memory();
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
