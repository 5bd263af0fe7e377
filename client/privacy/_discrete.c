/* Optional: what client/privacy/discrete.py does in numpy, in one pass. Built where a compiler is
 * found; the same draws come from the same bits without it (tests/client/privacy/test_discrete.py).
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>

typedef struct {
    const int64_t *guide, *high;
    Py_ssize_t bins;
    int high_bits, guide_bits, low_bits;
    double inverse, sure;
} Table;

/* Number of written values, or -1 if a draw needs exact arithmetic. */
static Py_ssize_t accept_draws(
    const uint64_t *choice, const uint64_t *coin, Py_ssize_t count, const Table *table, int64_t *out)
{
    const int64_t mask = ((int64_t)1 << table->low_bits) - 1;
    Py_ssize_t written = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        const int64_t high = (int64_t)(choice[i] >> (64 - table->high_bits));
        int64_t start = table->guide[high >> (table->high_bits - table->guide_bits)];
        if (start < 0) {
            Py_ssize_t low = 0, top = table->bins; /* first end above `high` */
            while (low < top) {
                const Py_ssize_t middle = (low + top) / 2;
                if (table->high[middle] <= high)
                    low = middle + 1;
                else
                    top = middle;
            }
            if (low > 0 && table->high[low - 1] == high)
                return -1;
            start = (int64_t)low << table->low_bits;
        }
        const int64_t place = (int64_t)(choice[i] >> 1) & mask;
        const int64_t value = start + place;
        const int64_t exponent = place * (start + value);
        const double uniform = (double)(int64_t)coin[i] * 0x1p-64 + 0.5;
        const double power = (double)exponent * table->inverse;
        int kept = uniform + power < 1 - table->sure;
        if (!kept) {
            const double excess = exp(-power) - uniform;
            if (fabs(excess) < table->sure)
                return -1;
            kept = excess > 0;
        }
        const int64_t sign = -(int64_t)(choice[i] & 1);
        out[written] = (value ^ sign) - sign;
        written += kept && (value != 0 || sign == 0);
    }
    return written;
}

static PyObject *accept(PyObject *module, PyObject *args)
{
    Py_buffer words, guide, high, out;
    Table table;
    if (!PyArg_ParseTuple(args, "y*w*y*y*iiidd", &words, &out, &guide, &high, &table.high_bits,
                          &table.guide_bits, &table.low_bits, &table.inverse, &table.sure))
        return NULL;
    const Py_ssize_t count = words.len / 16;
    Py_ssize_t written = -2;
    if (words.len % 16 == 0 && out.len >= 8 * count &&
        guide.len == (Py_ssize_t)8 << table.guide_bits && high.len % 8 == 0) {
        table.guide = guide.buf;
        table.high = high.buf;
        table.bins = high.len / 8;
        Py_BEGIN_ALLOW_THREADS
        written = accept_draws(words.buf, (uint64_t *)words.buf + count, count, &table, out.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&words);
    PyBuffer_Release(&out);
    PyBuffer_Release(&guide);
    PyBuffer_Release(&high);
    if (written == -2) {
        PyErr_SetString(PyExc_ValueError, "accept: the sizes of words, out and tables do not fit");
        return NULL;
    }
    return PyLong_FromSsize_t(written);
}

static PyMethodDef methods[] = {
    {"accept", accept, METH_VARARGS,
     "accept(words, out, guide, high, high_bits, guide_bits, low_bits, inverse, sure) -> written\n"
     "As DiscreteGaussian._accepted; -1 if a draw needs exact arithmetic."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_discrete", "Draws of a discrete Gaussian.", 0, methods,
};

PyMODINIT_FUNC PyInit__discrete(void)
{
    return PyModule_Create(&definition);
}
