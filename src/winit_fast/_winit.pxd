# Declarations of csrc/winit.h for Cython.
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "winit.h" nogil:
    enum:
        WINIT_F64
        WINIT_F32
        WINIT_MAX_AXES
        WINIT_NO_VALUE
        WINIT_NOT_FINITE
        WINIT_UNKNOWN

    ctypedef struct winit_stream:
        uint64_t seed
        uint64_t stream

    ctypedef struct winit_distribution:
        int kernel
        int type
        double loc
        double scale
        double low
        double high
        uint64_t flip
        uint64_t kappa
        double tail_step
        double[2] tail_start
        double t_step
        double t_step_rest
        double[2] t_start
        double t_unit
        double log_shift

    ctypedef struct winit_words:
        winit_stream stream

    ctypedef struct winit_window:
        int flip
        uint64_t kappa
        double tail_step
        double[2] tail_start
        double t_step
        double t_step_rest
        double[2] t_start
        int t_exponent
        int tail_exponent

    ctypedef struct winit_parameters:
        double loc
        double scale
        double low
        double high
        winit_window window

    ctypedef struct winit_axis:
        int64_t extent
        int64_t index_stride
        int64_t byte_stride

    const char *winit_type_name(int type)
    const char *winit_kernel_name(int kernel)
    size_t winit_type_size(int type)
    int winit_per_block(int type)
    int winit_set(winit_distribution *d, const char *name, int type, const winit_parameters *p)
    int winit_merge(winit_axis *axes, int n)
    void winit_fill(const winit_distribution *d, const winit_stream *s, void *dst,
                    uint64_t index, int axes, const int64_t *shape,
                    const int64_t *index_strides, const int64_t *byte_strides, int streaming)
    void winit_philox(const uint32_t *counter, const uint32_t *key, uint32_t *words)
    void winit_words_seek(winit_words *w, const winit_stream *s, uint64_t position)
    uint64_t winit_words_position(const winit_words *w)
    uint32_t winit_words_next_u32(void *words)
    uint64_t winit_words_next_u64(void *words)
    double winit_words_next_double(void *words)
    const char *winit_isa()
    const char *winit_isa_supported(int k)
    int winit_isa_choose(const char *name)
