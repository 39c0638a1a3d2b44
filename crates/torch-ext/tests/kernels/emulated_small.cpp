// Runs emulated.cpp with the shared memory of a GPU of compute capability 8.6, in which rings have
// fewer slots or warps.
#define SHARED_LIMIT (99 * 1024)
#include "emulated.cpp"
