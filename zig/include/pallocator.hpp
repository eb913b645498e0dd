//
// pallocator.hpp - C++ on a persistent heap: an allocator for containers, macros for single objects, and
// operator new and delete, in PERM's words. C++11 and later; perm.h has the rest.
//
//     #include "pallocator.hpp"
//
//     typedef std::list<int, PERM_NS::allocator<int> > numbers;
//     PERM numbers *home;
//     ...
//     home = PERM_NEW(numbers);
//     home->push_back(1);
//     backup();
//
// An object with virtual functions points to the program's code: it persists only where the program
// lies where it lay (`setarch -R`, or -no-pie, and the same build).
//
#ifndef PERM_PALLOCATOR_HPP
#define PERM_PALLOCATOR_HPP 1

#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "perm.h"

#define PERM_NS persistent

// A new object in the default heap: PERM_NEW(type), or PERM_NEW(type)(arguments). Throws
// std::bad_alloc. PERM_DELETE destroys it and frees its memory; a null pointer is left alone.
#define PERM_NEW(type) new (::PERM_NS::in_heap(alignof(type))) (type)
#define PERM_DELETE(ptr, type) ::PERM_NS::destroy_and_free< type >(ptr)
// Frees memory that holds nothing to destroy.
#define PERM_FREE(ptr) ::perm_free(ptr)

namespace PERM_NS {

// Memory of the default heap for `size` bytes, or std::bad_alloc.
inline void *allocate_bytes(std::size_t size, std::size_t alignment) {
  void *memory = alignment <= 16 ? ::perm_malloc(size) : ::perm_aligned_alloc(alignment, size);
  if (!memory) throw std::bad_alloc();
  return memory;
}

// Where PERM_NEW puts an object.
struct in_heap {
  std::size_t alignment;
  explicit in_heap(std::size_t wanted) : alignment(wanted) {}
};

template <typename T>
inline void destroy_and_free(T *object) {
  if (!object) return;
  object->~T();
  ::perm_free(const_cast<typename std::remove_cv<T>::type *>(object));
}

// An allocator of the default heap, without state: all are equal.
template <typename T>
class allocator {
 public:
  typedef T value_type;
  typedef T *pointer;
  typedef const T *const_pointer;
  typedef T &reference;
  typedef const T &const_reference;
  typedef std::size_t size_type;
  typedef std::ptrdiff_t difference_type;
  typedef std::true_type propagate_on_container_copy_assignment;
  typedef std::true_type propagate_on_container_move_assignment;
  typedef std::true_type propagate_on_container_swap;
  typedef std::true_type is_always_equal;

  template <typename U>
  struct rebind {
    typedef allocator<U> other;
  };

  allocator() noexcept {}
  allocator(const allocator &) noexcept {}
  template <typename U>
  allocator(const allocator<U> &) noexcept {}
  allocator &operator=(const allocator &) noexcept { return *this; }

  T *allocate(size_type count) {
    if (count > max_size()) throw std::bad_alloc();
    return static_cast<T *>(allocate_bytes(count * sizeof(T), alignof(T)));
  }

  // As before C++20: the hint says nothing.
  T *allocate(size_type count, const void *) { return allocate(count); }

  void deallocate(T *memory, size_type) noexcept { ::perm_free(memory); }

  size_type max_size() const noexcept {
    return static_cast<size_type>(std::numeric_limits<difference_type>::max()) / sizeof(T);
  }

  pointer address(reference object) const noexcept { return std::addressof(object); }
  const_pointer address(const_reference object) const noexcept { return std::addressof(object); }

  template <typename U, typename... Arguments>
  void construct(U *place, Arguments &&...arguments) {
    ::new (static_cast<void *>(place)) U(std::forward<Arguments>(arguments)...);
  }

  template <typename U>
  void destroy(U *object) {
    object->~U();
  }
};

template <>
class allocator<void> {
 public:
  typedef void value_type;
  typedef void *pointer;
  typedef const void *const_pointer;
  template <typename U>
  struct rebind {
    typedef allocator<U> other;
  };
  allocator() noexcept {}
  template <typename U>
  allocator(const allocator<U> &) noexcept {}
};

template <typename T, typename U>
inline bool operator==(const allocator<T> &, const allocator<U> &) noexcept {
  return true;
}

template <typename T, typename U>
inline bool operator!=(const allocator<T> &, const allocator<U> &) noexcept {
  return false;
}

}  // namespace PERM_NS

inline void *operator new(std::size_t size, ::PERM_NS::in_heap place) {
  return ::PERM_NS::allocate_bytes(size, place.alignment);
}

// Called when a constructor throws.
inline void operator delete(void *memory, ::PERM_NS::in_heap) noexcept { ::perm_free(memory); }

// With PERM_OVERRIDE_NEW, to be defined in exactly one source file of a program, all new and delete use
// the default heap while one is open, and the C library's malloc before and after.
#ifdef PERM_OVERRIDE_NEW

namespace PERM_NS {
inline void *new_bytes(std::size_t size, std::size_t alignment) {
  for (;;) {
    if (void *memory = ::perm_new(size, alignment)) return memory;
    std::new_handler handler = std::get_new_handler();
    if (!handler) throw std::bad_alloc();
    handler();
  }
}

inline void *new_bytes_or_null(std::size_t size, std::size_t alignment) noexcept {
  try {
    return new_bytes(size, alignment);
  } catch (...) {
    return nullptr;
  }
}

const std::size_t new_alignment = 16;
}  // namespace PERM_NS

void *operator new(std::size_t size) { return ::PERM_NS::new_bytes(size, ::PERM_NS::new_alignment); }
void *operator new[](std::size_t size) { return ::PERM_NS::new_bytes(size, ::PERM_NS::new_alignment); }
void *operator new(std::size_t size, const std::nothrow_t &) noexcept {
  return ::PERM_NS::new_bytes_or_null(size, ::PERM_NS::new_alignment);
}
void *operator new[](std::size_t size, const std::nothrow_t &) noexcept {
  return ::PERM_NS::new_bytes_or_null(size, ::PERM_NS::new_alignment);
}
void operator delete(void *memory) noexcept { ::perm_delete(memory); }
void operator delete[](void *memory) noexcept { ::perm_delete(memory); }
void operator delete(void *memory, const std::nothrow_t &) noexcept { ::perm_delete(memory); }
void operator delete[](void *memory, const std::nothrow_t &) noexcept { ::perm_delete(memory); }
void operator delete(void *memory, std::size_t) noexcept { ::perm_delete(memory); }
void operator delete[](void *memory, std::size_t) noexcept { ::perm_delete(memory); }

#ifdef __cpp_aligned_new
void *operator new(std::size_t size, std::align_val_t alignment) {
  return ::PERM_NS::new_bytes(size, static_cast<std::size_t>(alignment));
}
void *operator new[](std::size_t size, std::align_val_t alignment) {
  return ::PERM_NS::new_bytes(size, static_cast<std::size_t>(alignment));
}
void *operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t &) noexcept {
  return ::PERM_NS::new_bytes_or_null(size, static_cast<std::size_t>(alignment));
}
void *operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t &) noexcept {
  return ::PERM_NS::new_bytes_or_null(size, static_cast<std::size_t>(alignment));
}
void operator delete(void *memory, std::align_val_t) noexcept { ::perm_delete(memory); }
void operator delete[](void *memory, std::align_val_t) noexcept { ::perm_delete(memory); }
void operator delete(void *memory, std::align_val_t, const std::nothrow_t &) noexcept { ::perm_delete(memory); }
void operator delete[](void *memory, std::align_val_t, const std::nothrow_t &) noexcept { ::perm_delete(memory); }
void operator delete(void *memory, std::size_t, std::align_val_t) noexcept { ::perm_delete(memory); }
void operator delete[](void *memory, std::size_t, std::align_val_t) noexcept { ::perm_delete(memory); }
#endif

#endif  // PERM_OVERRIDE_NEW

#endif
