"""What an audit is made on: sources of images, read and checked one at a time, and masks."""
