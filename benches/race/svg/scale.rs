//! Times on a logarithmic axis.

use std::time::Duration;

/// From milliseconds to places.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogScale {
    /// Logarithms of the least and the largest time in milliseconds.
    range: (f64, f64),
    /// Where these are.
    places: (f64, f64),
}

impl LogScale {
    /// An axis on which all the times find room.
    pub(super) fn fitting<'t>(times: impl Iterator<Item = &'t Duration>, places: (f64, f64)) -> Self {
        let logarithms = times.map(|time| logarithm(*time));
        let (least, most) =
            logarithms.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), value| (a.min(value), b.max(value)));
        let range = if least < most { (least - 0.15, most + 0.15) } else { (-2.0, 2.0) };
        LogScale { range, places }
    }

    /// The same times at other places.
    pub(super) fn at(self, places: (f64, f64)) -> Self {
        LogScale { places, ..self }
    }

    /// Where a logarithm is.
    pub(super) fn place(&self, logarithm: f64) -> f64 {
        let (least, most) = self.range;
        let (from, to) = self.places;
        from + (logarithm - least) / (most - least) * (to - from)
    }

    /// So many logarithms from one end to the other.
    pub(super) fn steps(&self, count: u32) -> impl Iterator<Item = f64> + use<> {
        let (least, most) = self.range;
        (0..=count).map(move |step| least + (most - least) * f64::from(step) / f64::from(count))
    }

    /// Times to write beside the axis: 1, 2 and 5 of every power of ten.
    pub(super) fn marks(&self) -> Vec<(f64, String)> {
        let (least, most) = self.range;
        let decades = (-3..4).flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(decade)));
        let inside = decades.filter(|value| (least..=most).contains(&value.ln()));
        inside.map(|value| (self.place(value.ln()), value.to_string())).collect()
    }
}

/// A time's place before it has one.
pub(super) fn logarithm(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).max(1e-4).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_place_on_the_axis() {
        let times = [Duration::from_micros(150), Duration::from_millis(24)];
        let scale = LogScale::fitting(times.iter(), (100.0, 300.0));
        let places = times.map(|time| scale.place(logarithm(time)));
        assert!(100.0 < places[0] && places[0] < places[1] && places[1] < 300.0, "{places:?}");
        let marks: Vec<String> = scale.marks().into_iter().map(|(_, mark)| mark).collect();
        assert_eq!(marks, ["0.2", "0.5", "1", "2", "5", "10", "20"]);
    }
}
