/* The published complexity table: GMAC and million parameters, to the digits printed there. */
#include "backbones/fold.h"
#include "backbones/resnet.h"
#include "tests/pd_test.h"

static const struct {
    const char *arch;
    double gmac, params;
} rows[] = {
    {"resnet18", 1.8222, 11.6895},      {"se_resnet18", 1.8230, 11.7786},   {"ge_resnet18", 1.8250, 11.7529},
    {"ac_resnet18", 1.8222, 11.6895},   {"pd_a_resnet18", 1.8222, 11.6895}, {"pd_b_resnet18", 1.8222, 11.7615},
    {"resnet50", 4.1219, 25.5570},      {"se_resnet50", 4.1300, 28.0880},   {"ge_resnet50", 4.1425, 26.0555},
    {"ac_resnet50", 4.1219, 25.5570},   {"pd_a_resnet50", 4.1219, 25.5570}, {"pd_b_resnet50", 4.1220, 25.6369},
    {"resnet34", 3.6756, 21.7977},      {"resnet101", 7.8495, 44.5492},     {"resnet152", 11.5807, 60.1928},
    {"pd_b_resnet34", 3.6758, 21.9411}, {"pd_b_resnet101", 7.8496, 44.7001}, {"pd_b_resnet152", 11.5809, 60.4023},
};

int main(void)
{
    pd_err err = PD_ERR_INIT;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pd_arch arch;
        pd_params *params = NULL;
        pd_tape *t = NULL;
        PD_ROW(rows[i].arch);
        PD_CHECK_OK(pd_arch_parse(&arch, rows[i].arch, NULL, &err));
        PD_CHECK_OK(pd_params_new(&params, &err));
        PD_CHECK_OK(pd_tape_new(&t, params, false, &err));
        pd_record_classifier(t, PD_FORM_COUNT, arch, 1000, pd_tape_input(t, "image", PD_F32, PD_SHAPE(1, 224, 224, 3)), NULL);
        PD_CHECK_OK(pd_tape_status(t, &err));
        PD_CHECK_NEAR(pd_tape_macs(t, NULL) / 1e9, rows[i].gmac, 0.00005);
        PD_CHECK_NEAR((double)pd_params_elements(params, false) / 1e6, rows[i].params, 0.00005);
        pd_tape_free(t);
        pd_params_free(params);
    }
    pd_arch arch;
    PD_CHECK_FAILS(pd_arch_parse(&arch, "resnet19", NULL, &err), PD_EINVAL, "resnet19");
    PD_CHECK_FAILS(pd_arch_parse(&arch, "xresnet18", NULL, &err), PD_EINVAL, "xresnet18");
    PD_CHECK_FAILS(pd_arch_parse(&arch, "pd_a_resnet18", "s1,s3", &err), PD_EINVAL, "\"s3\" is unknown");
    PD_CHECK_FAILS(pd_arch_parse(&arch, "pd_a_resnet18", "s2", &err), PD_EINVAL, "s1 must");
    PD_CHECK_FAILS(pd_arch_parse(&arch, "resnet18", "s1,group", &err), PD_EINVAL, "no choice of branches");
    return pd_test_end();
}
