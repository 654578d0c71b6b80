//! A TCP relay between edge and order server that can be cut and mended: the wire, in a test's hands.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A relay on a fixed address of its own.
pub struct Relay {
    pub address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    cut: watch::Sender<bool>,
    swallow: Arc<std::sync::atomic::AtomicBool>,
}

impl Relay {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(None));
        let (cut, is_cut) = watch::channel(false);
        let swallow = Arc::new(std::sync::atomic::AtomicBool::new(false));
        tokio::spawn(accept(listener, target.clone(), is_cut, swallow.clone()));
        Self {
            address,
            target,
            cut,
            swallow,
        }
    }

    /// Where it leads to.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = Some(target);
    }

    /// Ends every connection and takes no new one, until mended.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }

    /// From now on requests arrive, but their answers are lost with the connection.
    pub fn swallow_answers(&self, yes: bool) {
        self.swallow.store(yes, std::sync::atomic::Ordering::SeqCst);
    }
}

async fn accept(
    listener: TcpListener,
    target: Arc<Mutex<Option<SocketAddr>>>,
    is_cut: watch::Receiver<bool>,
    swallow: Arc<std::sync::atomic::AtomicBool>,
) {
    while let Ok((near, _)) = listener.accept().await {
        let target = *target.lock().unwrap();
        if let Some(target) = target.filter(|_| !*is_cut.borrow()) {
            tokio::spawn(relay(near, target, is_cut.clone(), swallow.clone()));
        }
    }
}

async fn relay(
    near: TcpStream,
    target: SocketAddr,
    mut is_cut: watch::Receiver<bool>,
    swallow: Arc<std::sync::atomic::AtomicBool>,
) {
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let up = tokio::io::copy(&mut near_read, &mut far_write);
    let down = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut buffer = [0_u8; 16 << 10];
        loop {
            let count = far_read.read(&mut buffer).await.unwrap_or(0);
            // The answer was given and is lost: the connection ends before a byte of it arrives.
            if count == 0 || swallow.load(std::sync::atomic::Ordering::SeqCst) {
                return;
            }
            if near_write.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = up => {}
        () = down => {}
        _ = is_cut.wait_for(|cut| *cut) => {}
    }
}
