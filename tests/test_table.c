/* pd_table: calls the programs for three backbones and six detectors, stops where one fails, and prints the table of
 * what their logs say. The programs are stand-ins here, beside a copy of pd_table. */
#include "engine/file.h"
#include "tests/pd_test.h"
#include "tests/programs.h"

#include <stdlib.h>
#include <unistd.h>

static char dir[256];
static pd_err err;

static void put(const char *name, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    PD_CHECK_OK(pd_file_write(path, text, strlen(text), &err));
}

static int lines_of(const char *name, char *out, size_t size)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    const size_t n = f ? fread(out, 1, size - 1, f) : 0;
    out[n] = '\0';
    if (f) fclose(f);
    return pd_count_lines(out);
}

/* A validation with a better AP before the last one; what counts grows with the seed (of train.seed=N). */
static const char det[] =
    "#!/bin/sh\n"
    "echo pd_det_train \"$@\" >>calls\n"
    "for a in \"$@\"; do case $a in train.seed=*) seed=${a#train.seed=};; esac; done\n"
    "mkdir -p $3\n"
    "echo '{\"kind\": \"val\", \"epoch\": 1, \"step\": 1, \"AP\": 0.1'$seed', \"AP50\": 0.5, \"AP75\": 0.25, \"APs\": "
    "-1, "
    "\"APm\": 0.2, \"APl\": 0.3}' >$3/log.jsonl\n"
    "echo '{\"kind\": \"val\", \"epoch\": 2, \"step\": 2, \"AP\": 0.05, \"AP50\": 0.4, \"AP75\": 0.2, \"APs\": -1, "
    "\"APm\": 0.1, \"APl\": 0.2}' >>$3/log.jsonl\n";
static const char cls[] = "#!/bin/sh\necho pd_cls_train \"$@\" >>calls\n[ ! -e broken ]\n";

int main(void)
{
    static char calls[1 << 16];
    char command[1200];
    pd_child c = {0};
    const pd_child_how how = {.dir = dir};
    if (access(PD_BIN_DIR "/pd_table", X_OK) != 0) {
        PD_SKIP("pd_table is not built");
        return pd_test_end();
    }
    pd_test_dir(dir, "table");
    char bin[300];
    snprintf(bin, sizeof bin, "%s/bin", dir);
    snprintf(command, sizeof command, "cd '%s' && mkdir bin configs && cp '%s/pd_table' bin/", dir, PD_BIN_DIR);
    PD_CHECK_INT(system(command), 0);
    put("bin/pd_cls_train", cls);
    put("bin/pd_det_train", det);
    snprintf(command, sizeof command, "chmod +x '%s/bin/'*", dir);
    PD_CHECK_INT(system(command), 0);

    pd_child_run(&c, &how, bin,
                 "pd_table out --classes C --boxes B --configs configs --depth 18 --threads 3 --set data.flip=0");
    PD_CHECK_INT(c.code, 0);
    PD_CHECK_STR(c.out, "| detector, backbone | AP | AP50 | AP75 | APs | APm | APl |\n"
                        "| --- | --- | --- | --- | --- | --- | --- |\n"
                        "| RetinaNet, ResNet-18 | 11.0 | 50.0 | 25.0 | - | 20.0 | 30.0 |\n"
                        "| RetinaNet, PD-A-ResNet-18 | 11.0 | 50.0 | 25.0 | - | 20.0 | 30.0 |\n"
                        "| RetinaNet, PD-B-ResNet-18 | 11.0 | 50.0 | 25.0 | - | 20.0 | 30.0 |\n"
                        "| Cascade R-CNN, ResNet-18 | 11.0 | 50.0 | 25.0 | - | 20.0 | 30.0 |\n"
                        "| Cascade R-CNN, PD-A-ResNet-18 | 11.0 | 50.0 | 25.0 | - | 20.0 | 30.0 |\n"
                        "| Cascade R-CNN, PD-B-ResNet-18 | 11.0 | 50.0 | 25.0 | - | 20.0 | 30.0 |\n");
    PD_CHECK_INT(lines_of("calls", calls, sizeof calls), 9);
    PD_CHECK_MSG(
        strstr(calls, "pd_cls_train configs/small_cls.json --work-dir out/cls_pd_a_resnet18_1 --resume auto --device "),
        "calls: %s", calls);
    PD_CHECK_MSG(strstr(calls, "--threads 3 --set train.seed=1 --set model.arch=pd_b_resnet18 --set data.root=C\n"),
                 "calls: %s", calls);
    PD_CHECK_MSG(strstr(calls,
                        "--set train.seed=1 --backbone out/cls_pd_b_resnet18_1/best.safetensors --set "
                        "model.backbone.arch=pd_b_resnet18 --set data.train.images=B/train --set "
                        "data.train.annotations=B/annotations/instances_train.json --set data.val.images=B/val --set "
                        "data.val.annotations=B/annotations/instances_val.json --set data.flip=0\n"),
                 "calls: %s", calls);

    put("calls", "");
    pd_child_run(&c, &how, bin,
                 "pd_table out --classes C --boxes B --configs configs --seeds 3 --seed 4 --det-epochs 2");
    PD_CHECK_INT(c.code, 0);
    PD_CHECK_MSG(strstr(c.out, "| Cascade R-CNN, PD-A-ResNet-50 | 15.0 +- 1.0 | 50.0 +- 0.0 |"), "printed: %s", c.out);
    PD_CHECK_INT(lines_of("calls", calls, sizeof calls), 27);
    PD_CHECK(strstr(calls, " --set train.epochs=2"));

    put("calls", "");
    pd_child_run(&c, &how, bin, "pd_table out --classes C --boxes B --configs configs --only PD-B --seeds 2");
    PD_CHECK_INT(c.code, 0);
    PD_CHECK_INT(pd_count_lines(c.out), 4);
    PD_CHECK_MSG(strstr(c.out, "| RetinaNet, PD-B-ResNet-50 | 11.5 +- 0.5 |"), "printed: %s", c.out);
    PD_CHECK_INT(lines_of("calls", calls, sizeof calls), 6);
    PD_CHECK(!strstr(calls, "pd_a_resnet50"));
    pd_child_run(&c, &how, bin, "pd_table out --classes C --boxes B --configs configs --only YOLO");
    PD_CHECK_INT(c.code, 2);

    put("calls", "");
    put("broken", "");
    pd_child_run(&c, &how, bin, "pd_table out --classes C --boxes B --configs configs");
    PD_CHECK_INT(c.code, 1);
    PD_CHECK_MSG(strstr(c.err, "pd_cls_train failed (its message is above)") && !*c.out, "said: %s", c.err);
    PD_CHECK_INT(lines_of("calls", calls, sizeof calls), 1);
    pd_child_free(&c);
    pd_remove_tree(dir);
    return pd_test_end();
}
