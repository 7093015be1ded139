mod directory;
mod discovery;
mod identity;
mod lifecycle;
