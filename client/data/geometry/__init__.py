"""Places of slices and voxels in the patient: stacks, shifts within planes, and orientation."""
