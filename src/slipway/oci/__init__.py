"""A model repository as a signed OCI image: built, verified, pushed, pulled and unpacked without docker."""
