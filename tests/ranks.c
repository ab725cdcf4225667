#include "tests/ranks.h"
#include "tests/programs.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool pd_find_mpirun(char dir[256])
{
    char paths[4096], file[512], *rest = paths;
    pd_child c = {0};
    const char *path = getenv("PATH");
    snprintf(paths, sizeof paths, "%s", path ? path : "/usr/bin");
    for (char *p; (p = strsep(&rest, ":"));) {
        snprintf(file, sizeof file, "%.200s/mpirun", p);
        if (access(file, X_OK) != 0) continue;
        setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
        setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
        /* More processes than cores, tied to none; names of Open MPI 4, then of 5. */
        setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
        setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 1);
        setenv("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe", 1);
        setenv("PRTE_MCA_hwloc_default_binding_policy", "none", 1);
        /* not allowed in many containers; a notice otherwise */
        setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
        setenv("OMPI_MCA_btl_sm_single_copy_mechanism", "none", 0);
        setenv("OMP_NUM_THREADS", "1", 0);
        setenv("ASAN_OPTIONS", "fast_unwind_on_malloc=0", 0); /* whole stacks, which name MPI's libraries */
        setenv("LSAN_OPTIONS", "suppressions=" PD_SOURCE_DIR "/tests/lsan.supp:print_suppressions=0", 0);
        setenv("TSAN_OPTIONS", "suppressions=" PD_SOURCE_DIR "/tests/tsan.supp", 0);
        snprintf(dir, 256, "%.200s", p);
        pd_child_run(&c, NULL, dir, "mpirun --version");
        const bool open_mpi = c.code == 0 && strstr(c.out, "Open MPI");
        pd_child_free(&c);
        return open_mpi;
    }
    return false;
}
