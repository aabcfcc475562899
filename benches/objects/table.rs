//! What was measured beside the marks it is held against. Owns the layout.

/// One figure.
struct Row {
    name: String,
    measured: String,
    mark: String,
    is_met: Option<bool>,
}

#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// A figure that is to be at most `mark`.
    pub fn at_most(&mut self, name: &str, measured: f64, mark: f64, unit: &str) {
        self.add(name, measured, unit, Some((format!("<= {mark} {unit}"), measured <= mark)));
    }

    /// A figure that is to be at least `mark`.
    pub fn at_least(&mut self, name: &str, measured: f64, mark: f64, unit: &str) {
        self.add(name, measured, unit, Some((format!(">= {mark} {unit}"), measured >= mark)));
    }

    /// A figure for comparison.
    pub fn plain(&mut self, name: &str, measured: f64, unit: &str) {
        self.add(name, measured, unit, None);
    }

    fn add(&mut self, name: &str, measured: f64, unit: &str, mark: Option<(String, bool)>) {
        let measured = match measured {
            small if small < 100.0 => format!("{small:.2} {unit}"),
            large => format!("{large:.0} {unit}"),
        };
        eprintln!("{name}: {measured}");
        let (mark, is_met) = mark.map_or((String::new(), None), |(mark, met)| (mark, Some(met)));
        self.0.push(Row { name: name.to_owned(), measured, mark, is_met });
    }

    pub fn print(&self) {
        println!("{:<58} {:>14} {:>14}", "", "measured", "mark");
        for row in &self.0 {
            let verdict = match row.is_met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            println!("{:<58} {:>14} {:>14} {verdict}", row.name, row.measured, row.mark);
        }
    }
}
