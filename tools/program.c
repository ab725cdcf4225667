#include "tools/program.h"
#include "engine/file.h"
#include "tools/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

pd_status pd_home_find(pd_home *out, const char *configs, pd_arena *arena, pd_err *err)
{
    char self[4096], *bin, *tree, *installed;
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0) return PD_FAIL(err, PD_EIO, "cannot find this program's folder: %s", strerror(errno));
    self[length] = '\0';
    char *slash = strrchr(self, '/');
    if (slash) *slash = '\0';
    PD_TRY(pd_strdup(&bin, arena, self, err));
    PD_TRY(pd_format(&tree, arena, err, "%s/../../configs", self));
    PD_TRY(pd_format(&installed, arena, err, "%s/../share/paradise/configs", self));
    if (!configs) configs = pd_is_dir(tree) ? tree : installed;
    if (!pd_is_dir(configs)) return PD_FAIL(err, PD_EIO, "%s: no configurations there: give --configs DIR", configs);
    *out = (pd_home){bin, configs};
    return PD_OK;
}

pd_status pd_program_run(const char *what, const char *const *argv, const char *to, pd_err *err)
{
    posix_spawn_file_actions_t actions;
    pid_t child;
    int code = 0;
    const char *slash = strrchr(argv[0], '/');
    fprintf(stderr, "\n-- %s\n   %s", what, slash ? slash + 1 : argv[0]);
    for (const char *const *arg = argv + 1; *arg; arg++) fprintf(stderr, " %s", *arg);
    fputs("\n", stderr);
    posix_spawn_file_actions_init(&actions);
    if (to) posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, to, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    const int failed = posix_spawn(&child, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed) return PD_FAIL(err, PD_EIO, "%s: cannot start: %s", argv[0], strerror(failed));
    while (waitpid(child, &code, 0) < 0)
        if (errno != EINTR) return PD_FAIL(err, PD_EIO, "%s: lost: %s", argv[0], strerror(errno));
    if (pd_cli_stop_asked()) return PD_FAIL(err, PD_ESTOP, "stopped");
    if (!WIFEXITED(code) || WEXITSTATUS(code))
        return PD_FAIL(err, PD_EINVAL, "%s failed (its message is above)", argv[0]);
    return PD_OK;
}
