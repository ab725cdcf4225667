/* program.h: programs that run the other programs: where those are, and a run of one of them. */
#ifndef PD_PROGRAM_H
#define PD_PROGRAM_H

#include "engine/arena.h"

typedef struct pd_home {
    const char *bin, *configs; /* folders of the programs and of the configurations */
} pd_home;

/* Beside this program, in the build tree or installed. configs: given by the user, or NULL. */
pd_status pd_home_find(pd_home *out, const char *configs, pd_arena *arena, pd_err *err);

/* Starts argv[0], shows the command on standard error under the heading `what`, and waits for it. to: file for its
 * standard output, or NULL. PD_ESTOP when Ctrl-C came meanwhile (the child gets it too), PD_EINVAL when it failed. */
pd_status pd_program_run(const char *what, const char *const *argv, const char *to, pd_err *err);

#endif
