/* The shared library of these programs. */
#ifndef LIBSTACKS_H
#define LIBSTACKS_H

void library_call(void (*callback)(void)); /* calls back, from a frame of its own */
void library_leaf(void);		   /* burns somewhat less than a millisecond, without a frame */
void library_tick(void);		   /* as little work as there can be */

#endif
