// Runs one kernel on the CPU, for ../src/tests/cuda.rs.
//
//   host KERNEL BLOCKS rising|falling < parameters > output
//
// Parameters come in the order of the kernel's signature: a number as it is, an input as its length
// in bytes (u64) and the bytes, the output as its length. Every array ends where a page ends that
// nobody may touch, so a read or write past its end is a crash.
#include "dequantise.cu"
#include "norm.cu"
#include "rope.cu"

#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <string>
#include <tuple>
#include <type_traits>

[[noreturn]] static void fail(const char* what) {
    std::fprintf(stderr, "%s\n", what);
    std::exit(1);
}

static void take(void* into, size_t len) {
    if (std::fread(into, 1, len, stdin) != len) {
        fail("the parameters end early");
    }
}

static void* guarded(size_t len) {
    const size_t page = size_t(sysconf(_SC_PAGESIZE)), pages = (len + page - 1) / page * page;
    const int access = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void* start = mmap(nullptr, pages + page, access, flags, -1, 0);
    if (start == MAP_FAILED || mprotect(static_cast<char*>(start) + pages, page, PROT_NONE) != 0) {
        fail("no memory");
    }
    return static_cast<char*>(start) + pages - len;
}

struct Output {
    void* start;
    size_t len;
};

template <typename P>
static P parameter(Output& output) {
    if constexpr (std::is_pointer_v<P>) {
        uint64_t len;
        take(&len, sizeof len);
        if (len == UINT64_MAX) {
            return nullptr;
        }
        void* array = guarded(len);
        if constexpr (std::is_const_v<std::remove_pointer_t<P>>) {
            take(array, len);
        } else {
            output = {array, len};
        }
        return static_cast<P>(array);
    } else {
        P number;
        take(&number, sizeof number);
        return number;
    }
}

template <typename... P>
static Output call(void (*kernel)(P...), uint32_t blocks, bool falling) {
    Output output{};
    const std::tuple<P...> parameters{parameter<P>(output)...}; // braces: from left to right
    Block::run(blocks, THREADS, falling, [&] { std::apply(kernel, parameters); });
    return output;
}

using Kernel = std::function<Output(uint32_t, bool)>;

template <typename... P>
static Kernel callable(void (*kernel)(P...)) {
    return [kernel](uint32_t blocks, bool falling) { return call(kernel, blocks, falling); };
}

#define NORM(name, T) {"layer_norm_modulate_" #name, callable(layer_norm_modulate_##name)},
#define ROPE(name, T) {"rms_norm_rope_" #name, callable(rms_norm_rope_##name)},
#define DEQUANTISE(format, name) \
    {"dequantise_" #format "_" #name, callable(dequantise_##format##_##name)},

int main(int argc, char** argv) {
    const std::map<std::string, Kernel> kernels{
        FOR_EACH_TYPE(NORM) FOR_EACH_TYPE(ROPE) FOR_EACH_FORMAT(DEQUANTISE, f32)
            FOR_EACH_FORMAT(DEQUANTISE, f16) FOR_EACH_FORMAT(DEQUANTISE, bf16)};
    if (argc != 4 || kernels.count(argv[1]) == 0) {
        fail("usage: host KERNEL BLOCKS rising|falling");
    }
    const uint32_t blocks = uint32_t(std::stoul(argv[2]));
    const Output output = kernels.at(argv[1])(blocks, std::string(argv[3]) == "falling");
    if (std::fwrite(output.start, 1, output.len, stdout) != output.len) {
        fail("the output could not be written");
    }
}
