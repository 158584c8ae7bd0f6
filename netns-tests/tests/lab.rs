//! `tapvs lab` tells its whole story, and leaves nothing behind however it ends.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for ordinary code")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

const NOTHING_LEFT: &str = "nothing left behind";
/// By this many lines the lab has child processes and is not yet near its end.
const RUNNING: usize = 8;

#[test]
fn the_whole_story_is_told() {
    let mut lab = Lab::start("story", &["--requests", "600"]);
    let mut text = String::new();
    while let Some(line) = lab.line() {
        text.push_str(&line);
        text.push('\n');
    }
    let status = lab.end();
    assert!(status.success(), "{status}\n{text}{}", lab.errors());
    for words in ["connection refused", "Starting s3 again", NOTHING_LEFT] {
        assert!(text.contains(words), "`{words}` in\n{text}");
    }
    let rows = |name: &str| text.lines().filter(|line| line.contains(name)).count();
    assert_eq!([rows(" s1  "), rows(" s2  "), rows(" s3  ")], [3; 3], "{text}");
    lab.assert_gone();
}

/// Ctrl-C after each line that it prints: while it builds, sends, stops a server, cleans up.
#[test]
fn an_interrupted_lab_leaves_nothing_behind() {
    ended_after_each_line("INT", |status, text| {
        let cleaned = text.last().is_some_and(|line| line.contains(NOTHING_LEFT));
        assert!(cleaned, "{status}\n{}", text.join("\n"));
        // The story's last lines may be out before the signal is in.
        assert!(matches!(status.code(), Some(130 | 0)), "{status}\n{}", text.join("\n"));
    });
}

#[test]
fn a_killed_lab_leaves_nothing_behind() {
    ended_after_each_line("KILL", |status, text| {
        let told = text.last().is_some_and(|line| line.contains(NOTHING_LEFT));
        assert!(status.signal() == Some(9) || (told && status.success()), "{status}");
    });
}

fn ended_after_each_line(signal: &str, judge: impl Fn(ExitStatus, &[String])) {
    let mut moments = 0;
    loop {
        let mut lab = Lab::start(&format!("{signal}-{moments}"), &["--requests", "300"]);
        let mut text = Vec::new();
        while text.len() <= moments
            && let Some(line) = lab.line()
        {
            text.push(line);
        }
        if text.len() <= moments {
            // It had fewer lines than that: every moment has had its turn.
            let status = lab.end();
            assert!(status.success(), "{status}\n{}{}", text.join("\n"), lab.errors());
            assert!(moments > 20, "only {moments} lines:\n{}", text.join("\n"));
            return;
        }
        if moments == RUNNING {
            let running = lab.processes();
            assert!(running.len() > 1, "not even seen while it runs: {running:?}");
        }
        lab.signal(signal);
        while let Some(line) = lab.line() {
            text.push(line);
        }
        judge(lab.end(), &text);
        lab.assert_gone();
        moments += 1;
    }
}

/// A running `tapvs lab`. Its processes inherit a directory for temporary files of its own, by
/// which they can be told from everybody else's.
struct Lab {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    directory: PathBuf,
}

impl Lab {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let directory =
            std::env::temp_dir().join(format!("tapvs-lab-test-{}-{name}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let mut child = Command::new(binary())
            .arg("lab")
            .args(arguments)
            .env("TMPDIR", &directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output, directory }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line).unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    fn signal(&self, signal: &str) {
        // It may have ended already, so the answer does not matter.
        let _ = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {}", self.child.id())])
            .stderr(Stdio::null())
            .status()
            .unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    fn errors(&mut self) -> String {
        std::io::read_to_string(self.child.stderr.take().unwrap()).unwrap()
    }

    /// No process, no file, no device.
    fn assert_gone(&self) {
        // After SIGKILL it is the kernel that ends the children, a moment later.
        let mut left = self.processes();
        for _ in 0..100 {
            if left.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
            left = self.processes();
        }
        assert!(left.is_empty(), "left behind: {left:?}");
        let files: Vec<_> = fs::read_dir(&self.directory).unwrap().collect();
        assert!(files.is_empty(), "left behind: {files:?}");
        for device in ["tapvs0", "tapvs1", "labbr0"] {
            assert!(!Path::new("/sys/class/net").join(device).exists(), "{device} left behind");
        }
    }

    /// Every process that has this lab's environment.
    fn processes(&self) -> Vec<String> {
        let mark = format!("TMPDIR={}", self.directory.display());
        let processes = fs::read_dir("/proc").unwrap();
        processes
            .filter_map(|process| Some(process.ok()?.path()))
            .filter(|path| {
                let environment = fs::read(path.join("environ")).unwrap_or_default();
                environment.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes())
            })
            .map(|path| {
                let command = fs::read(path.join("cmdline")).unwrap_or_default();
                format!("{}: {}", path.display(), String::from_utf8_lossy(&command))
            })
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir(&self.directory);
    }
}

/// The binary of the profile that this test was built with; built first, for it is another
/// package's.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "tapvs", "--bin", "tapvs"]);
        build.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "tapvs does not build");
        profile.join("tapvs")
    })
}
