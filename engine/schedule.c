#include "engine/schedule.h"

#include <math.h>

static const char *const types[] = {"constant", "step", "multistep", "cosine", NULL};
static const char *const units[] = {"epoch", "step", NULL};

static const pd_field fields[] = {
    PD_ENUM(pd_schedule, type, types, .text = "constant", .doc = "how the learning rate falls"),
    PD_ENUM(pd_schedule, by, units, .text = "epoch", .doc = "what every, milestones and the cosine count"),
    PD_INT64(pd_schedule, every, .def = 30, .min = 1, .max = 1e12, .doc = "step: a drop each so many"),
    PD_INT64_LIST(pd_schedule, milestones, n_milestones, .min = 1, .max = 1e12,
                  .doc = "multistep: a drop after each of these, as [8, 11]"),
    PD_DOUBLE(pd_schedule, gamma, .def = 0.1, .min = 0, .max = 1, .above_min = true, .doc = "factor of a drop"),
    PD_DOUBLE(pd_schedule, min_lr, .def = 0, .min = 0, .max = 1000, .doc = "cosine: the learning rate at the end"),
    PD_INT64(pd_schedule, warmup_steps, .def = 0, .min = 0, .max = 1e12, .doc = "steps of linear warm-up; 0: none"),
    PD_DOUBLE(pd_schedule, warmup_ratio, .def = 0.001, .min = 0, .max = 1, .doc = "factor at the first step"),
};

static pd_status check(const void *cfg, pd_err *err)
{
    const pd_schedule *s = cfg;
    if (s->type == PD_SCHEDULE_MULTISTEP && s->n_milestones == 0)
        return PD_FAIL(err, PD_EINVAL, "type \"multistep\" needs milestones, as [8, 11]");
    for (int i = 1; i < s->n_milestones; i++)
        if (s->milestones[i] <= s->milestones[i - 1])
            return PD_FAIL(err, PD_EINVAL, "milestones must rise, but %lld stands behind %lld",
                           (long long)s->milestones[i], (long long)s->milestones[i - 1]);
    return PD_OK;
}

const pd_table pd_schedule_table = PD_TABLE(pd_schedule, fields, .check = check);

double pd_schedule_lr(const pd_schedule *s, double base, int64_t epoch, int64_t step, int64_t total_epochs,
                      int64_t total_steps)
{
    const int64_t t = s->by == PD_SCHEDULE_BY_EPOCH ? epoch : step;
    const int64_t total = s->by == PD_SCHEDULE_BY_EPOCH ? total_epochs : total_steps;
    double lr = base;
    switch (s->type) {
    case PD_SCHEDULE_CONSTANT: break;
    case PD_SCHEDULE_STEP: {
        const int64_t drops = t / s->every;
        lr = base * pow(s->gamma, (double)drops);
        break;
    }
    case PD_SCHEDULE_MULTISTEP: {
        int drops = 0;
        while (drops < s->n_milestones && s->milestones[drops] <= t) drops++;
        lr = base * pow(s->gamma, drops);
        break;
    }
    case PD_SCHEDULE_COSINE: {
        const double done = total > 0 ? fmin((double)t / (double)total, 1) : 0;
        lr = s->min_lr + (base - s->min_lr) * (1 + cos(3.14159265358979323846 * done)) / 2;
        break;
    }
    }
    if (step < s->warmup_steps) lr *= 1 - (1 - (double)step / (double)s->warmup_steps) * (1 - s->warmup_ratio);
    return lr;
}
