/* The emulated CUDA run time: memory, streams, graphs, blocks of threads. */
#include "engine/poison.h"
#include "tests/emulate/kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif
#include <deque>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

struct emulate_graph {
    std::vector<std::function<void()>> work;
};
struct emulate_stream {
    emulate_graph *capture = nullptr;
    std::deque<std::function<void()>> waiting; /* in order; runs when somebody waits for it */
    unsigned long given = 0, done = 0;
};
struct emulate_event {
    emulate_stream *stream = nullptr;
    unsigned long given = 0; /* what the stream had when it was recorded */
};

namespace
{

/* ---- device memory: one reserved range of addresses, closed while no work runs ---- */

const size_t RESERVED = (size_t)4 << 30, LINE = 256;
const size_t LARGE_PAGE = (size_t)2 << 20;

struct block_of_memory {
    size_t at, bytes;
    bool used;
};

struct memory {
    char *base = nullptr;
    size_t top = 0; /* used up to here */
    std::vector<block_of_memory> blocks;
    int open = 0;
};
memory device;

/* By a protection key where the processor has them (an instruction), else by the page tables (a system call). */
int key_of_device()
{
    static const int key = pkey_alloc(0, 0);
    return key;
}

void protect(int how)
{
    const int key = key_of_device();
    if (!device.top) return;
    if (key >= 0)
        pkey_set(key, how == PROT_NONE ? PKEY_DISABLE_ACCESS : 0);
    else if (mprotect(device.base, (device.top + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE, how) != 0)
        abort();
}

struct opened {
    opened()
    {
        if (device.open++ == 0) protect(PROT_READ | PROT_WRITE);
    }
    ~opened()
    {
        if (--device.open == 0) protect(PROT_NONE);
    }
};

/* Not a number, to whoever reads it; to AddressSanitizer, nobody's but for the bytes asked for. */
void poison(void *at, size_t bytes, size_t asked)
{
    const opened now;
    PD_UNPOISON(at, bytes);
    memset(at, 0xff, bytes);
    PD_POISON((char *)at + asked, bytes - asked);
}

/* ---- work of streams: as late as a GPU may do it ---- */

std::vector<emulate_stream *> streams;
long waits = 0;

void run_until(emulate_stream *s, unsigned long given)
{
    while (s->done < given) {
        const std::function<void()> work = std::move(s->waiting.front());
        s->waiting.pop_front();
        s->done++;
        const opened now;
        work();
    }
}

void run_all()
{
    for (emulate_stream *s : streams) run_until(s, s->given);
}

struct host_range {
    const char *at;
    size_t bytes;
};
std::vector<host_range> pinned;

bool is_pinned(const void *at)
{
    for (const host_range &r : pinned)
        if ((const char *)at >= r.at && (const char *)at < r.at + r.bytes) return true;
    return false;
}

/* ---- threads as fibers ---- */

const size_t STACK = 64 << 10;
const unsigned MOST_THREADS = 1024;

/* A point of execution to come back to. ucontext's switch makes two system calls; that of a function call's registers
 * makes none. */
#ifdef __x86_64__
typedef void *place;
extern "C" void emulate_switch(place *from, place to);
asm(R"(
.text
.type emulate_switch, @function
emulate_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size emulate_switch, .-emulate_switch
)");

void begin_at(place *p, char *stack, size_t size, void (*entry)())
{
    void **top = (void **)(((uintptr_t)stack + size) & ~(uintptr_t)63);
    *--top = nullptr; /* where entry would return to; it does not */
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    *p = top;
}

void go(place *from, place *to)
{
    emulate_switch(from, *to);
}
#else
typedef ucontext_t place;

void begin_at(place *p, char *stack, size_t size, void (*entry)())
{
    getcontext(p);
    p->uc_stack.ss_sp = stack;
    p->uc_stack.ss_size = size;
    p->uc_link = nullptr;
    makecontext(p, entry, 0);
}

void go(place *from, place *to)
{
    swapcontext(from, to);
}
#endif

struct fiber {
    place at;
    char *stack = nullptr;
    bool finished = true;
};

struct team {
    std::vector<fiber> fibers;
    place scheduler;
    const std::function<void()> *body = nullptr;
    unsigned current = 0;
    bool running = false;
    float exchange[MOST_THREADS];
    ~team()
    {
        for (fiber &f : fibers) free(f.stack);
    }
};
team crew;

void fiber_main()
{
    for (;;) { /* one turn for each block */
        (*crew.body)();
        fiber &self = crew.fibers[crew.current];
        self.finished = true;
        go(&self.at, &crew.scheduler);
    }
}

void set_thread(unsigned t)
{
    threadIdx.x = t % blockDim.x;
    threadIdx.y = t / blockDim.x % blockDim.y;
    threadIdx.z = t / blockDim.x / blockDim.y;
}

void run_with_barriers(const std::function<void()> &body, unsigned threads)
{
    while (crew.fibers.size() < threads) {
        crew.fibers.emplace_back();
        fiber &f = crew.fibers.back();
        f.stack = (char *)malloc(STACK);
    }
    crew.body = &body;
    crew.running = true;
    for (unsigned t = 0; t < threads; t++) {
        fiber &f = crew.fibers[t];
        f.finished = false;
        begin_at(&f.at, f.stack, STACK, fiber_main);
    }
    for (bool going = true; going;) {
        unsigned finished = 0;
        for (unsigned t = 0; t < threads; t++) {
            crew.current = t;
            set_thread(t);
            go(&crew.scheduler, &crew.fibers[t].at);
            finished += crew.fibers[t].finished;
        }
        if (finished && finished != threads) {
            fprintf(stderr, "emulation: %u of %u threads left a kernel while others wait at a barrier\n", finished,
                    threads);
            abort();
        }
        going = !finished;
    }
    crew.running = false;
}

void run_grid(const std::function<void()> &body, dim3 grid, dim3 block, bool barriers)
{
    const unsigned threads = block.x * block.y * block.z;
    if (threads > MOST_THREADS) abort();
    gridDim = grid;
    blockDim = block;
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
                if (barriers) {
                    run_with_barriers(body, threads);
                    continue;
                }
                for (unsigned t = 0; t < threads; t++) {
                    set_thread(t);
                    body();
                }
            }
}

template <class F> float over_warp(float x, F combine)
{
    const unsigned self = crew.current, lane = self % 32, first = self - lane;
    crew.exchange[self] = x;
    __syncthreads();
    float v[32], next[32];
    for (unsigned i = 0; i < 32; i++) v[i] = crew.exchange[first + i];
    for (unsigned step = 16; step; step >>= 1) {
        for (unsigned i = 0; i < 32; i++) next[i] = combine(v[i], v[i ^ step]);
        memcpy(v, next, sizeof v);
    }
    __syncthreads();
    return v[lane];
}

} // namespace

void __syncthreads()
{
    if (!crew.running) {
        fprintf(stderr, "emulation: a barrier in a kernel that was not launched by launch_sync\n");
        abort();
    }
    const unsigned self = crew.current;
    go(&crew.fibers[self].at, &crew.scheduler);
}

namespace emulate
{

float warp_sum(float x)
{
    return over_warp(x, [](float a, float b) { return a + b; });
}

float warp_max(float x)
{
    return over_warp(x, [](float a, float b) { return fmaxf(a, b); });
}

unsigned warp_votes(bool flag)
{
    const unsigned self = crew.current, first = self - self % 32;
    unsigned votes = 0;
    crew.exchange[self] = flag;
    __syncthreads();
    for (unsigned i = 0; i < 32; i++) votes |= (unsigned)(crew.exchange[first + i] != 0) << i;
    __syncthreads();
    return votes;
}

void enqueue(cudaStream_t stream, std::function<void()> work)
{
    if (stream->capture) {
        stream->capture->work.push_back(std::move(work));
        return;
    }
    stream->waiting.push_back(std::move(work));
    stream->given++;
}

int launch(std::function<void()> body, dim3 grid, dim3 block, cudaStream_t stream, bool barriers)
{
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
    if (grid.y > 65535 || grid.z > 65535) return cudaErrorInvalidValue;
    enqueue(stream, [=] { run_grid(body, grid, block, barriers); });
    return cudaSuccess;
}

} // namespace emulate

/* ---- the run time's functions ---- */

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t code)
{
    return code == cudaSuccess ? "no error" : code == cudaErrorMemoryAllocation ? "out of memory" : "invalid argument";
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int index)
{
    return index == 0 ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int index)
{
    (void)index;
    snprintf(properties->name, sizeof properties->name, "emulation on the CPU");
    properties->major = 9;
    properties->minor = 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    const size_t asked = bytes;
    bytes = (bytes + LINE - 1) / LINE * LINE + LINE; /* a gap behind every block */
    if (!device.base) {
        void *all =
            mmap(nullptr, RESERVED + LARGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (all == MAP_FAILED) return cudaErrorMemoryAllocation;
        device.base = (char *)(((uintptr_t)all + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE);
    }
    /* large pages, never cut: closing and opening few of them is quick */
    if (!device.top) (void)madvise(device.base, RESERVED, MADV_HUGEPAGE);
    if (!device.top && key_of_device() >= 0 &&
        pkey_mprotect(device.base, RESERVED, PROT_READ | PROT_WRITE, key_of_device()) != 0)
        return cudaErrorMemoryAllocation;
    std::vector<block_of_memory> &blocks = device.blocks;
    size_t best = blocks.size(); /* the smallest hole that it fits into */
    for (size_t i = 0; i < blocks.size(); i++)
        if (!blocks[i].used && blocks[i].bytes >= bytes && (best == blocks.size() || blocks[i].bytes < blocks[best].bytes))
            best = i;
    if (best < blocks.size()) {
        const block_of_memory hole = blocks[best];
        blocks[best] = {hole.at, bytes, true};
        if (hole.bytes > bytes)
            blocks.insert(blocks.begin() + (ptrdiff_t)best + 1, {hole.at + bytes, hole.bytes - bytes, false});
        *out = device.base + hole.at;
        poison(*out, bytes, asked);
        return cudaSuccess;
    }
    if (device.top + bytes > RESERVED) return cudaErrorMemoryAllocation;
    device.blocks.push_back({device.top, bytes, true});
    *out = device.base + device.top;
    device.top += bytes;
    if (device.open) protect(PROT_READ | PROT_WRITE);
    poison(*out, bytes, asked);
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    std::vector<block_of_memory> &blocks = device.blocks; /* by address, no two holes side by side */
    for (size_t i = 0; i < blocks.size(); i++)
        if (device.base + blocks[i].at == (char *)memory && blocks[i].used) {
            run_all(); /* as the run time waits */
            poison(memory, blocks[i].bytes, 0);
            blocks[i].used = false;
            if (i + 1 < blocks.size() && !blocks[i + 1].used) {
                blocks[i].bytes += blocks[i + 1].bytes;
                blocks.erase(blocks.begin() + (ptrdiff_t)i + 1);
            }
            if (i > 0 && !blocks[i - 1].used) {
                blocks[i - 1].bytes += blocks[i].bytes;
                blocks.erase(blocks.begin() + (ptrdiff_t)i);
            }
            if (!blocks.back().used) { /* what lies behind all others is new again */
                device.top = blocks.back().at;
                blocks.pop_back();
            }
            return cudaSuccess;
        }
    return memory ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    *out = malloc(bytes);
    if (*out) pinned.push_back({(const char *)*out, bytes});
    return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *memory)
{
    run_all();
    for (size_t i = 0; i < pinned.size(); i++)
        if (pinned[i].at == memory) {
            pinned.erase(pinned.begin() + (long)i);
            break;
        }
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *all)
{
    *left = RESERVED - device.top;
    *all = RESERVED;
    return cudaSuccess;
}

static bool on_device(const void *at)
{
    return (const char *)at >= device.base && (const char *)at < device.base + device.top;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    const bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
    if (on_device(to) != to_device || on_device(from) != from_device) return cudaErrorInvalidValue;
    if (stream->capture && kind != cudaMemcpyDeviceToDevice)
        return cudaErrorInvalidValue; /* would replay stale host memory */
    if (kind == cudaMemcpyHostToDevice && !is_pinned(from)) { /* has left the host's memory when this returns */
        const std::vector<char> staged((const char *)from, (const char *)from + bytes);
        emulate::enqueue(stream, [=] { memmove(to, staged.data(), bytes); });
        return cudaSuccess;
    }
    emulate::enqueue(stream, [=] { memmove(to, from, bytes); });
    if (kind == cudaMemcpyDeviceToHost && !is_pinned(to)) return cudaStreamSynchronize(stream);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *at, int byte, size_t bytes, cudaStream_t stream)
{
    if (!on_device(at)) return cudaErrorInvalidValue;
    emulate::enqueue(stream, [=] { memset(at, byte, bytes); });
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    (void)flags;
    *stream = new emulate_stream;
    streams.push_back(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    run_all();
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == stream) {
            streams.erase(streams.begin() + (long)i);
            break;
        }
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    if (stream->capture) return cudaErrorInvalidValue; /* as a real capture refuses it */
    waits++;
    run_until(stream, stream->given);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    const emulate_event e = *event;
    (void)flags;
    if (e.stream && e.stream != stream) emulate::enqueue(stream, [=] { run_until(e.stream, e.given); });
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    (void)flags;
    *event = new emulate_event;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    event->stream = stream;
    event->given = stream->given;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    if (event->stream) run_until(event->stream, event->given);
    return cudaSuccess;
}

long emulate_waits(void)
{
    return waits;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    (void)mode;
    if (stream->capture) return cudaErrorInvalidValue;
    stream->capture = new emulate_graph;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    *graph = stream->capture;
    stream->capture = nullptr;
    return *graph ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ready, cudaGraph_t graph, unsigned long long flags)
{
    (void)flags;
    *ready = new emulate_graph(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream)
{
    emulate::enqueue(stream, [=] {
        for (const std::function<void()> &work : graph->work) work();
    });
    return cudaSuccess;
}
