/* A shared library with a PERM block of its own, beside that of the program (modules.c). */
#include "perm.h"

PERM int in_module = 10;

int module_register(void) { return perm(PERM_START, PERM_SIZE); }
int *module_value(void) { return &in_module; }
size_t module_size(void) { return PERM_SIZE; }
