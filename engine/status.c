#include "engine/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

pd_status pd_fail(pd_err *err, pd_status code, const char *fmt, ...)
{
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    for (char *p = err->text; *p; p++)
        if (*p == '\n' || *p == '\r') *p = ' ';
    err->code = code;
    return code;
}

void pd_err_context(pd_err *err, const char *fmt, ...)
{
    if (!err || err->code == PD_OK) return;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, fmt);
    const int used = vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof err->text) {
        const size_t at = (size_t)used, room = sizeof err->text - at;
        if (snprintf(err->text + at, room, ": %s", old) < 0) err->text[at] = '\0';
    }
}

const char *pd_status_text(pd_status code)
{
    switch (code) {
    case PD_OK: return "no error";
    case PD_EINVAL: return "invalid argument";
    case PD_ENOMEM: return "out of memory";
    case PD_EIO: return "input/output error";
    case PD_EFORMAT: return "malformed file";
    case PD_EDEVICE: return "device error";
    case PD_ESTOP: return "stopped";
    }
    return "unknown status";
}
