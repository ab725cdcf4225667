/* The learning rate: mmdetection's warm-up and drops, step, cosine; the configuration rows. */
#include "engine/schedule.h"
#include "tests/pd_test.h"

static pd_status read_schedule(pd_schedule *s, const char *text, pd_arena *arena, pd_err *err)
{
    pd_config *c = NULL;
    PD_TRY(pd_config_parse(&c, "s", text, strlen(text), err));
    const pd_status status = pd_config_read(s, c, &pd_schedule_table, arena, err);
    pd_config_free(c);
    return status;
}

/* Values that mmdetection 2 and 1 give for 1x training: warm-up of 500 iterations, drops after epochs 8 and 11. */
static void test_mmdetection(void)
{
    static const struct {
        const char *text;
        double base;
        double lr[5]; /* at steps 0, 1, 250, 499, 500 */
    } rows[] = {
        {"{\"type\": \"multistep\", \"milestones\": [8, 11], \"warmup_steps\": 500}",
         0.02,
         {0.00002, 0.00005996, 0.01001, 0.01996004, 0.02}},
        {"{\"type\": \"multistep\", \"milestones\": [8, 11], \"warmup_steps\": 500, \"warmup_ratio\": 0.001}",
         0.01,
         {0.00001, 0.00002998, 0.005005, 0.00998002, 0.01}},
        {"{\"type\": \"multistep\", \"milestones\": [8, 11], \"warmup_steps\": 500, \"warmup_ratio\": "
         "0.3333333333333333}",
         0.02,
         {0.02 / 3, 0.006693333333333333, 0.013333333333333333, 0.019973333333333333, 0.02}},
    };
    static const int64_t steps[] = {0, 1, 250, 499, 500};
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PD_ROW(rows[i].text);
        pd_schedule s;
        PD_CHECK_OK(read_schedule(&s, rows[i].text, arena, &err));
        for (int k = 0; k < 5; k++)
            PD_CHECK_NEAR(pd_schedule_lr(&s, rows[i].base, 0, steps[k], 12, 87960), rows[i].lr[k], 1e-15);
        for (int64_t e = 0; e < 12; e++)
            PD_CHECK_NEAR(pd_schedule_lr(&s, rows[i].base, e, 7330 * e + 500, 12, 87960),
                          rows[i].base * (e < 8    ? 1
                                          : e < 11 ? 0.1
                                                   : 0.01),
                          1e-15);
    }
    PD_ROW("");
    pd_arena_free(arena);
}

static void test_others(void)
{
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    pd_schedule s;
    PD_CHECK_OK(read_schedule(&s, "{}", arena, &err));
    PD_CHECK(pd_schedule_lr(&s, 0.1, 50, 12345, 90, 100000) == 0.1);
    /* the authors' ImageNet training: divided by 10 every 30 epochs */
    PD_CHECK_OK(read_schedule(&s, "{\"type\": \"step\", \"every\": 30}", arena, &err));
    static const double want[] = {0.1, 0.1, 0.01, 0.01, 0.001, 0.0001};
    static const int64_t at[] = {0, 29, 30, 59, 60, 99};
    for (int i = 0; i < 6; i++) PD_CHECK_NEAR(pd_schedule_lr(&s, 0.1, at[i], 0, 100, 0), want[i], 1e-17);
    PD_CHECK_OK(
        read_schedule(&s, "{\"type\": \"step\", \"every\": 100, \"by\": \"step\", \"gamma\": 0.5}", arena, &err));
    PD_CHECK_NEAR(pd_schedule_lr(&s, 1, 7, 250, 9, 1000), 0.25, 0);
    /* PyTorch's CosineAnnealingLR in its closed form, T_max 10, eta_min 0.001, base 0.1 */
    PD_CHECK_OK(read_schedule(&s, "{\"type\": \"cosine\", \"min_lr\": 0.001}", arena, &err));
    PD_CHECK_NEAR(pd_schedule_lr(&s, 0.1, 0, 999, 10, 1), 0.1, 1e-15);
    PD_CHECK_NEAR(pd_schedule_lr(&s, 0.1, 3, 0, 10, 1), 0.07959536998847742, 1e-15);
    PD_CHECK_NEAR(pd_schedule_lr(&s, 0.1, 5, 0, 10, 1), 0.0505, 1e-15);
    PD_CHECK_NEAR(pd_schedule_lr(&s, 0.1, 9, 0, 10, 1), 0.0034227024433899004, 1e-15);
    PD_CHECK_NEAR(pd_schedule_lr(&s, 0.1, 10, 0, 10, 1), 0.001, 1e-15);
    PD_CHECK_NEAR(pd_schedule_lr(&s, 0.1, 20, 0, 10, 1), 0.001, 1e-15);
    PD_CHECK_NEAR(pd_schedule_lr(&s, 0.1, 3, 0, 0, 0), 0.1, 1e-15);
    PD_CHECK_OK(read_schedule(&s, "{\"type\": \"cosine\", \"by\": \"step\", \"warmup_steps\": 4, \"warmup_ratio\": 0}",
                              arena, &err));
    PD_CHECK_NEAR(pd_schedule_lr(&s, 1, 0, 2, 1, 8), 0.5 * (1 + sqrt(0.5)) / 2, 1e-15);
    PD_CHECK_NEAR(pd_schedule_lr(&s, 1, 0, 4, 1, 8), 0.5, 1e-15);

    PD_CHECK_FAILS(read_schedule(&s, "{\"type\": \"multistep\"}", arena, &err), PD_EFORMAT, "needs milestones");
    PD_CHECK_FAILS(read_schedule(&s, "{\"milestones\": [11, 8]}", arena, &err), PD_EFORMAT, "8 stands behind 11");
    PD_CHECK_FAILS(read_schedule(&s, "{\"type\": \"cosin\"}", arena, &err), PD_EFORMAT, "did you mean \"cosine\"?");
    PD_CHECK_FAILS(read_schedule(&s, "{\"every\": 0}", arena, &err), PD_EFORMAT, "every: is 0 (a number)");
    pd_arena_free(arena);
}

int main(void)
{
    test_mmdetection();
    test_others();
    return pd_test_end();
}
