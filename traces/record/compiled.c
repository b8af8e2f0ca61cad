/* Compiled for the recording of gcc: loops, a table, recursion and structures, so that most passes have work. */
typedef unsigned long word;
struct node { struct node *left, *right; word key; };
static word table[256];
static void fill(void) {
  for (word i = 0; i < 256; i++) {
    word c = i;
    for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320UL ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
}
word crc(const unsigned char *p, word n) {
  word c = ~0UL;
  if (!table[1]) fill();
  while (n--) c = table[(c ^ *p++) & 255] ^ (c >> 8);
  return ~c;
}
void sort(word *a, long n) {
  if (n < 2) return;
  word pivot = a[n / 2];
  long i = 0, j = n - 1;
  for (;; i++, j--) {
    while (a[i] < pivot) i++;
    while (a[j] > pivot) j--;
    if (i >= j) break;
    word t = a[i]; a[i] = a[j]; a[j] = t;
  }
  sort(a, i);
  sort(a + i, n - i);
}
struct node *insert(struct node *at, struct node *new) {
  if (!at) return new;
  if (new->key < at->key) at->left = insert(at->left, new);
  else at->right = insert(at->right, new);
  return at;
}
word sum(const struct node *at) { return at ? at->key + sum(at->left) + sum(at->right) : 0; }
void multiply(double *c, const double *a, const double *b, int n) {
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) {
      double s = 0;
      for (int k = 0; k < n; k++) s += a[i * n + k] * b[k * n + j];
      c[i * n + j] = s;
    }
}
