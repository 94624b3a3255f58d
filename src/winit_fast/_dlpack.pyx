# cython: language_level=3, freethreading_compatible=True
"""Reads DLPack capsules, which describe tensors of other libraries, without consuming them.

The structures are those of dlpack.h, version 1.1. Since the capsule is not consumed, it frees the
tensor when it is garbage collected. So the caller must keep the capsule while it uses the memory.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    READ_ONLY = 1  # DLPACK_FLAG_BITMASK_READ_ONLY


cdef extern from *:
    """
    #include <stdint.h>

    typedef struct { int32_t device_type; int32_t device_id; } DLDevice;
    typedef struct { uint8_t code; uint8_t bits; uint16_t lanes; } DLDataType;
    typedef struct {
        void *data;
        DLDevice device;
        int32_t ndim;
        DLDataType dtype;
        int64_t *shape;
        int64_t *strides;
        uint64_t byte_offset;
    } DLTensor;
    typedef struct { uint32_t major; uint32_t minor; } DLPackVersion;
    typedef struct DLManagedTensorVersioned {
        DLPackVersion version;
        void *manager_ctx;
        void (*deleter)(struct DLManagedTensorVersioned *);
        uint64_t flags;
        DLTensor dl_tensor;
    } DLManagedTensorVersioned;
    """
    ctypedef struct DLDevice:
        int32_t device_type

    ctypedef struct DLDataType:
        uint8_t code
        uint8_t bits
        uint16_t lanes

    ctypedef struct DLTensor:
        void *data
        DLDevice device
        int32_t ndim
        DLDataType dtype
        int64_t *shape
        int64_t *strides
        uint64_t byte_offset

    ctypedef struct DLPackVersion:
        uint32_t major
        uint32_t minor

    ctypedef struct DLManagedTensorVersioned:
        DLPackVersion version
        uint64_t flags
        DLTensor dl_tensor


CPU = 1
VERSION = (1, 1)

# DLDataTypeCode: the names of plain kinds, to which the width must be appended.
KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex"}
FLOAT8 = {
    7: "float8_e3m4",
    8: "float8_e4m3",
    9: "float8_e4m3b11fnuz",
    10: "float8_e4m3fn",
    11: "float8_e4m3fnuz",
    12: "float8_e5m2",
    13: "float8_e5m2fnuz",
    14: "float8_e8m0fnu",
}


def describe(capsule):
    """Describe the tensor in a capsule.

    Parameters
    ----------
    capsule : PyCapsule
        The result of ``__dlpack__`` of a tensor on the CPU, not yet consumed.

    Returns
    -------
    address : int
    shape, strides : tuple of int
        Strides count elements.
    dtype : str
        The type's name in NumPy or ml_dtypes.
    writable : bool or None
        None if the capsule has a DLPack version before 1, which does not say.

    Raises
    ------
    BufferError
        If the capsule is anything else.
    """
    cdef DLTensor *tensor
    cdef DLManagedTensorVersioned *versioned
    if PyCapsule_IsValid(capsule, "dltensor_versioned"):
        versioned = <DLManagedTensorVersioned *> PyCapsule_GetPointer(capsule, "dltensor_versioned")
        if versioned.version.major != 1:
            raise BufferError(f"DLPack must be of version 1, got {versioned.version.major}")
        writable = (versioned.flags & READ_ONLY) == 0
        tensor = &versioned.dl_tensor
    elif PyCapsule_IsValid(capsule, "dltensor"):
        writable = None
        # The DLTensor is the first member of a DLManagedTensor.
        tensor = <DLTensor *> PyCapsule_GetPointer(capsule, "dltensor")
    else:
        raise BufferError(f"expected a DLPack capsule that is not consumed, got {capsule!r}")
    if tensor.device.device_type != 1:
        raise BufferError(f"expected a tensor on the CPU, got device {tensor.device.device_type}")

    cdef int axis
    shape = tuple([tensor.shape[axis] for axis in range(tensor.ndim)])
    if tensor.strides != NULL:
        strides = tuple([tensor.strides[axis] for axis in range(tensor.ndim)])
    else:  # no strides means contiguous in C order
        step, strides = 1, ()
        for extent in reversed(shape):
            strides = (step, *strides)
            step *= extent
    address = <uint64_t> <size_t> tensor.data + tensor.byte_offset
    return address, shape, strides, name(tensor.dtype), writable


cdef name(DLDataType dtype):
    if dtype.lanes != 1:
        return f"a vector of {dtype.lanes} lanes"
    if dtype.code == 6:
        return "bool"
    if dtype.code in KINDS:
        return f"{KINDS[dtype.code]}{dtype.bits}"
    return FLOAT8.get(dtype.code, f"DLPack type {dtype.code}")
