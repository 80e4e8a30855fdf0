//! What the tests of this sample test is not the point.
