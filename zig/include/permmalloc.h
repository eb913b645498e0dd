/*
 * libpermmalloc: every allocation of a program from a file in a directory of your choice.
 *
 * Nothing needs to be called: the library takes the place of the C library's malloc when it is
 * preloaded (LD_PRELOAD=libpermmalloc.so) or linked (-lpermmalloc). docs/permmalloc.md says what its
 * environment is.
 */
#ifndef PERMMALLOC_H
#define PERMMALLOC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The least VMMALLOC_POOL_SIZE, in bytes. */
#define VMMALLOC_MIN_POOL ((size_t)(14 * 1024 * 1024))

/* What stdlib.h and malloc.h may not declare. */
void *reallocarray(void *block, size_t count, size_t size);
void free_sized(void *block, size_t size);
void free_aligned_sized(void *block, size_t alignment, size_t size);

#ifdef __cplusplus
}
#endif

#endif
