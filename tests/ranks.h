/* ranks.h: test programs and the house's programs as several processes under mpirun. */
#ifndef PD_TEST_RANKS_H
#define PD_TEST_RANKS_H

#include <stdbool.h>

/* The folder of mpirun, for pd_child_start(c, how, dir, "mpirun -np 2 ..."); false: there is none, or it is not Open
 * MPI's. Its way is prepared: as root, on fewer processors than ranks, one compute thread each; a sanitizer passes over
 * MPI's own leaks and locks (lsan.supp, tsan.supp). */
bool pd_find_mpirun(char dir[256]);

#endif
